package normalize

import "strconv"

func (f *field) emitObject(r *run, at uint32, dst []byte) ([]byte, bool, error) {
	if f.base.text != "" {
		at = r.doc.find(&f.base, at)
		if v := r.doc.scalar(at); v.kind != object {
			if f.optional && (v.kind == missing || v.kind == null) {
				return dst, false, nil
			}
			return dst, false, &misfit{from: "path " + f.base.text, found: v.String(), want: "an object"}
		}
	}
	start := len(dst)
	dst = append(dst, '{')
	dst, err := emitFields(f.fields, r, at, dst)
	if err != nil {
		return dst, false, err
	}
	if f.optional && dst[len(dst)-1] == '{' && len(dst) == start+1 {
		return dst[:start], false, nil
	}
	return append(dst, '}'), true, nil
}

// emitFields appends "name":value of each field that is not left out, separated by commas.
func emitFields(fields []*field, r *run, at uint32, dst []byte) ([]byte, error) {
	for _, f := range fields {
		start := len(dst)
		if last := dst[start-1]; last != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, f.prefix...)
		out, ok, err := f.emit(r, at, dst)
		if err != nil {
			return out, within(f.contract.Name, err)
		}
		if dst = out; !ok {
			dst = dst[:start]
		}
	}
	return dst, nil
}

func (f *field) emitEach(r *run, at uint32, dst []byte) ([]byte, bool, error) {
	list := r.doc.find(&f.base, at)
	if v := r.doc.scalar(list); v.kind != array {
		if f.optional && (v.kind == missing || v.kind == null) {
			if f.contract.Required {
				return append(dst, "[]"...), true, nil
			}
			return dst, false, nil
		}
		return dst, false, &misfit{from: "path " + f.base.text, found: v.String(), want: "a list"}
	}
	dst = append(dst, '[')
	outer := r.index
	r.index = 0
	end := r.doc.nodes[list].next
	for i := list + 1; i < end; i = r.doc.nodes[i].next {
		var err error
		if dst, err = emitItem(f.items[0], r, i, dst); err != nil {
			return dst, false, within("["+strconv.FormatInt(r.index, 10)+"]", err)
		}
		r.index++
	}
	r.index = outer
	return append(dst, ']'), true, nil
}

func (f *field) emitItems(r *run, at uint32, dst []byte) ([]byte, bool, error) {
	dst = append(dst, '[')
	for i, item := range f.items {
		var err error
		if dst, err = emitItem(item, r, at, dst); err != nil {
			return dst, false, within("["+strconv.Itoa(i)+"]", err)
		}
	}
	return append(dst, ']'), true, nil
}

func emitItem(item *field, r *run, at uint32, dst []byte) ([]byte, error) {
	start := len(dst)
	if dst[start-1] != '[' {
		dst = append(dst, ',')
	}
	out, ok, err := item.emit(r, at, dst)
	if err == nil && !ok {
		out = out[:start]
	}
	return out, err
}
