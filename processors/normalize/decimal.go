package normalize

import (
	"errors"
	"fmt"
	"math/bits"
)

// maxNumber bounds the digits of a number that is read; contracts allow 25.
const maxNumber = 60

// decimalRule says how a decimal number is written.
type decimalRule struct {
	shift       int  // the point moves this many places to the left: minor units
	least, most int  // places
	round       bool // half to even, where there are more places than most
}

// What a number that cannot be read should have been; the words follow "want".
var (
	errNumber   = errors.New("a decimal number such as -1234.50")
	errExponent = errors.New("plain digits, without exponent")
)

// appendDecimal writes the decimal number s, exactly or (rule.round) rounded half to even. It reads an optional minus,
// digits, and optionally a point and more digits. Zeros in front, and at the end beyond rule.least places, are dropped;
// minus zero becomes zero.
func appendDecimal(dst, s []byte, rule decimalRule) ([]byte, error) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	var buf [maxNumber + 16]byte // room for shifted zeros and a carry
	digits, scale, err := splitDecimal(buf[1:1], s)
	if err != nil {
		return dst, err
	}
	scale += rule.shift
	for scale > rule.least && len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits, scale = digits[:len(digits)-1], scale-1
	}
	if scale > rule.most {
		if !rule.round {
			return dst, fmt.Errorf("at most %d decimal places where it has %d; declare round: half_even to round", rule.most, scale)
		}
		digits, scale = roundHalfEven(digits, scale, rule.most), rule.most
	}
	for scale < rule.least {
		digits, scale = append(digits, '0'), scale+1
	}
	for len(digits) > 0 && digits[0] == '0' {
		digits = digits[1:]
	}
	if negative && len(digits) > 0 {
		dst = append(dst, '-')
	}
	whole := len(digits) - scale
	if whole <= 0 {
		dst = append(dst, '0')
	} else {
		dst = append(dst, digits[:whole]...)
	}
	if scale == 0 {
		return dst, nil
	}
	dst = append(dst, '.')
	for ; whole < 0; whole++ {
		dst = append(dst, '0')
	}
	return append(dst, digits[whole:]...), nil
}

// splitDecimal appends the digits of s to digits; the last scale of them stand after the point.
func splitDecimal(digits, s []byte) (_ []byte, scale int, err error) {
	point := -1
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9':
			if len(digits) == maxNumber {
				return nil, 0, fmt.Errorf("at most %d digits", maxNumber)
			}
			digits = append(digits, c)
		case c == '.' && point < 0 && i > 0 && i < len(s)-1:
			point = i
		case (c == 'e' || c == 'E') && i > 0:
			return nil, 0, errExponent
		default:
			return nil, 0, errNumber
		}
	}
	if len(digits) == 0 {
		return nil, 0, errNumber
	}
	if point >= 0 {
		scale = len(s) - point - 1
	}
	return digits, scale, nil
}

// roundHalfEven drops the last scale-most digits.
func roundHalfEven(digits []byte, scale, most int) []byte {
	keep := len(digits) - (scale - most)
	if keep < 0 { // less than a twentieth of the last place
		return digits[:0]
	}
	rest, kept := digits[keep:], digits[:keep]
	odd := keep > 0 && (kept[keep-1]-'0')%2 == 1
	up := rest[0] > '5' || rest[0] == '5' && (odd || !allZero(rest[1:]))
	if !up {
		return kept
	}
	for i := keep - 1; i >= 0; i-- {
		if kept[i] != '9' {
			kept[i]++
			return kept
		}
		kept[i] = '0'
	}
	// All nines: a new digit goes in front.
	kept = append(kept, 0)
	copy(kept[1:], kept[:keep])
	kept[0] = '1'
	return kept
}

func allZero(digits []byte) bool {
	for _, d := range digits {
		if d != '0' {
			return false
		}
	}
	return true
}

// multiply is the exact product of two numbers of the record: a line's total, mostly. It does what
// decimal(x) * decimal(y) does in an expression, at a twentieth of the cost.
func (r *run) multiply(g *getter, at uint32) (value, error) {
	var units [2]uint64
	var scale int
	negative := false
	for i := range g.product {
		p := &g.product[i]
		v := r.doc.scalar(r.doc.find(p, at))
		if v.absent() {
			return v, nil // as if the path were missing
		}
		s := v.text
		if len(s) > 0 && s[0] == '-' && v.kind != boolean {
			negative, s = !negative, s[1:]
		}
		var buf [maxNumber]byte
		digits, places, err := splitDecimal(buf[:0], s)
		if err != nil || v.kind >= array || v.kind == boolean {
			return value{}, &misfit{from: "path " + p.text, found: v.String(), want: errNumber.Error()}
		}
		for _, d := range digits {
			hi, lo := bits.Mul64(units[i], 10)
			if hi != 0 || lo+uint64(d-'0') < lo {
				return value{}, &misfit{from: "path " + p.text, found: v.String(), want: "at most 19 digits in a product"}
			}
			units[i] = lo + uint64(d-'0')
		}
		scale += places
	}
	hi, lo := bits.Mul64(units[0], units[1])
	return value{number, formatScaled(negative, hi, lo, scale)}, nil
}

// formatScaled writes the 128-bit number hi, lo with scale of its digits after the point.
func formatScaled(negative bool, hi, lo uint64, scale int) []byte {
	var buf [2*maxNumber + 4]byte
	i := len(buf)
	for n := 0; hi != 0 || lo != 0 || n <= scale; n++ {
		if n == scale && n > 0 {
			i--
			buf[i] = '.'
		}
		var digit uint64
		hi, digit = hi/10, hi%10
		lo, digit = bits.Div64(digit, lo, 10)
		i--
		buf[i] = byte('0' + digit)
	}
	if negative {
		i--
		buf[i] = '-'
	}
	return append([]byte(nil), buf[i:]...)
}
