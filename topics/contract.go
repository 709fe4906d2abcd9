package topics

import (
	"cmp"
	"embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed contracts/*.json
var contractFiles embed.FS

// Contract is the promise about the values on one finance topic: a JSON Schema, compiled into a Shape that is checked
// much faster than the schema itself, and rules that a schema cannot state. It is safe for concurrent use.
type Contract struct {
	Entity string // "invoice"
	Major  int    // 1
	ID     string // the schema's $id; ce_dataschema of the records
	Schema []byte // the schema file, JSON Schema 2020-12
	Shape  *Shape // what the schema says, typed
}

// Entities lists the entities of the finance model that have a contract, each at its newest major version.
func Entities() []string { return []string{"contact", "invoice", "payment"} }

// ContractFor compiles the contract of one entity of the finance model. It takes about a millisecond: call it once, at
// the start.
func ContractFor(entity string, major int) (*Contract, error) {
	if !ValidName(entity) || major < 1 {
		return nil, fmt.Errorf("no contract %.80q version %d", entity, major)
	}
	b, err := contractFiles.ReadFile("contracts/" + entity + ".v" + strconv.Itoa(major) + ".json")
	if err != nil {
		return nil, fmt.Errorf("no contract %q version %d: there are %s", entity, major, strings.Join(Entities(), ", "))
	}
	c, err := newContract(entity, major, b)
	if err != nil {
		return nil, fmt.Errorf("compiling contract %s: %w", Finance(entity, major), err)
	}
	return c, nil
}

func newContract(entity string, major int, file []byte) (*Contract, error) {
	s, err := parseSchema(file)
	if err != nil {
		return nil, err
	}
	root, err := compileSchema(s)
	if err != nil {
		return nil, err
	}
	c := &Contract{Entity: entity, Major: major, ID: s.ID, Schema: file, Shape: root.Shape}
	assignRoles(entity, root.Shape)
	return c, nil
}

// Topic is the finance topic that the contract governs.
func (c *Contract) Topic() string { return Finance(c.Entity, c.Major) }

// Check reports where doc breaks the schema: nil, or a *ContractError. It decides as a validator of JSON Schema 2020-12
// with format assertion does, and is stricter in what the text itself may be: no property occurs twice, strings are valid
// UTF-8, hold no unpaired surrogate and no U+0000 (PostgreSQL cannot store it), and an integer is written without point
// or exponent and fits 64 bits. It does not allocate if doc keeps the contract and has no escape sequences in property
// names, enumerations, dates or numbers.
func (c *Contract) Check(doc []byte) error { return c.check(doc, false) }

// CheckRules is Check and, in the same pass, the rules beyond the schema; see docs/finance.md for their words. Each has
// the code that its Problem carries:
//
//	currency_unknown   a currency is one of ISO 4217
//	currency_places    an amount has no more decimal places than its currency (a unit price may)
//	currency_mixed     all money of a document is in one currency, that of the document where it states one
//	line_twice         no two lines of an invoice share an id
//	lines_sum          an invoice's subtotal, if given, is the sum of its lines' totals
//	total_sum          if subtotal and tax_total are given, total = subtotal - discount_total + tax_total
//	allocations_sum    if unapplied is given, allocations + unapplied = amount
//	allocations_exceed otherwise allocations do not exceed the amount
//
// Sums are exact. The rules are judged only where the schema is kept, so that one fault is not reported twice.
func (c *Contract) CheckRules(doc []byte) error { return c.check(doc, true) }

// Problem is one place where a document breaks its contract.
type Problem struct {
	Path    string `json:"path"`    // JSON pointer; "" is the document itself
	Code    string `json:"code"`    // from a closed set: a metric label
	Message string `json:"message"` // what was wanted and what was found
}

func (p Problem) String() string { return cmp.Or(p.Path, "document") + ": " + p.Message }

// ContractError holds what is wrong with a document, in the order of the document, up to a limit.
type ContractError struct {
	Topic    string
	Problems []Problem
}

func (e *ContractError) Error() string {
	var b strings.Builder
	b.WriteString("contract " + e.Topic + ": ")
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}
