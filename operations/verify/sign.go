package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Document is a report as it is filed: the report, and who vouches for it. The signature is over Format, a newline, and the report's
// JSON without the spaces between its tokens, so that it survives being indented, but nothing else.
type Document struct {
	Report    json.RawMessage `json:"report"`
	Signature *Signature      `json:"signature"` // null: nobody has signed it
}

// Signature of a report.
type Signature struct {
	Algorithm   string `json:"algorithm"`   // ed25519
	PublicKey   []byte `json:"public_key"`  // base64
	Fingerprint string `json:"fingerprint"` // of the public key: to compare by eye
	Value       []byte `json:"value"`       // base64
}

// Signer signs reports. Its zero value does not, and says so.
type Signer struct{ key ed25519.PrivateKey }

// NewKey makes a key for signing and writes it to file, readable by its owner only, and its public part to file.pub. It does not
// overwrite: reports that were signed with a lost key cannot be signed again.
func NewKey(file string) (fingerprint string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	if err := create(file, "PRIVATE KEY", privateDER, 0o600); err != nil {
		return "", err
	}
	if err := create(file+".pub", "PUBLIC KEY", publicDER, 0o644); err != nil {
		return "", errors.Join(err, os.Remove(file))
	}
	return Fingerprint(public), nil
}

func create(file, kind string, der []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(filepath.Clean(file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
}

// LoadSigner reads a key that NewKey has written; "" is no key.
func LoadSigner(file string) (Signer, error) {
	if file == "" {
		return Signer{}, nil
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return Signer{}, fmt.Errorf("reading the signing key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Signer{}, fmt.Errorf("reading the signing key: %s holds no private key; make one with `leat verify keygen`", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Signer{}, fmt.Errorf("reading the signing key %s: it cannot be understood", file) // the reason may show parts of it
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return Signer{}, fmt.Errorf("reading the signing key: %s is no Ed25519 key; make one with `leat verify keygen`", file)
	}
	return Signer{private}, nil
}

// PublicKey reads a public key: the .pub file of NewKey, or the key in base64 as it stands in a report.
func PublicKey(text []byte) (ed25519.PublicKey, error) {
	if block, _ := pem.Decode(text); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if public, ok := key.(ed25519.PublicKey); err == nil && ok {
			return public, nil
		}
		return nil, errors.New("the public key is no Ed25519 key: name the .pub file that `leat verify keygen` has written")
	}
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("the public key is neither a PEM file nor 32 bytes in base64: name the .pub file that `leat verify keygen` has written")
	}
	return raw, nil
}

// Fingerprint names a public key.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// Sign makes the document of a report.
func (s Signer) Sign(r *Report) (*Document, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the report: %w", err)
	}
	d := &Document{Report: raw}
	if s.key == nil {
		return d, nil
	}
	public := s.key.Public().(ed25519.PublicKey)
	message, err := signed(raw)
	if err != nil {
		return nil, err
	}
	d.Signature = &Signature{Algorithm: "ed25519", PublicKey: public, Fingerprint: Fingerprint(public), Value: ed25519.Sign(s.key, message)}
	return d, nil
}

func signed(report []byte) ([]byte, error) {
	b := bytes.NewBufferString(Format + "\n")
	if err := json.Compact(b, report); err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	return b.Bytes(), nil
}

// Checked is what a check of a document found.
type Checked struct {
	Report      *Report `json:"report"`
	Signed      bool    `json:"signed"`
	Valid       bool    `json:"valid"`       // the signature is that of the report
	Trusted     bool    `json:"trusted"`     // and was made with the key that was asked for
	Fingerprint string  `json:"fingerprint"` // of the key in the document
	Problem     string  `json:"problem,omitempty"`
}

// Check reads a document and checks its signature. Without a key only that the report is unchanged since somebody has signed it can be said,
// not who. The error is for what is no document at all.
func Check(text []byte, trusted ed25519.PublicKey) (Checked, error) {
	var d Document
	if err := json.Unmarshal(text, &d); err != nil {
		return Checked{}, fmt.Errorf("reading the report: %w", err)
	}
	var c Checked
	if err := json.Unmarshal(d.Report, &c.Report); err != nil || c.Report == nil || c.Report.Format != Format {
		return Checked{}, errors.New("reading the report: this is no report of `leat verify`")
	}
	if d.Signature == nil {
		c.Problem = "the report is not signed"
		return c, nil
	}
	c.Signed = true
	if d.Signature.Algorithm != "ed25519" || len(d.Signature.PublicKey) != ed25519.PublicKeySize {
		c.Problem = "the signature is of a kind that this version does not know"
		return c, nil
	}
	key := ed25519.PublicKey(d.Signature.PublicKey)
	c.Fingerprint = Fingerprint(key)
	message, err := signed(d.Report)
	if err != nil {
		return Checked{}, err
	}
	switch c.Valid = ed25519.Verify(key, message, d.Signature.Value); {
	case !c.Valid:
		c.Problem = "the signature does not fit: the report was changed after it was signed"
	case trusted == nil: // unchanged, but anybody can have signed it
	case !key.Equal(trusted):
		c.Problem = "it was signed with another key: " + c.Fingerprint + ", not " + Fingerprint(trusted)
	default:
		c.Trusted = true
	}
	return c, nil
}
