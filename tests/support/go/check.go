// Check answers questions about transparency logs with Go's own code, golang.org/x/mod/sumdb.
//
// It reads a JSON list of questions on standard input and writes a JSON list of answers; an empty
// error means "it holds". Nothing in it was written against our Python code.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type question struct {
	Kind    string
	Note    []byte   // note: the signed note
	Vkey    string   // note: verifier key of the log
	Witness []string // note: verifier keys of witnesses (cosignature/v1)
	Skey    string   // sign: signer key in Go's own text form
	Text    string   // sign: the text to sign
	Leaf    []byte   // record: hash of the leaf
	Index   int64    // record
	Size    int64    // record, tree: size of the tree
	Root    []byte
	OldSize int64 // tree
	OldRoot []byte
	Proof   [][]byte
	Entries [][]byte // prove: the entries of a log

	Tiles map[string][]byte // tiles: by path of c2sp.org/tlog-tiles, without its prefix
}

type answer struct {
	Error    string
	Verified int
	Note     []byte
	Roots    [][]byte   // prove: root by size, from 1
	Records  [][][]byte // prove: proof by index, in the whole tree
	Trees    [][][]byte // prove: proof from each old size, from 1, to the whole tree
}

// cosigner verifies cosignature/v1 lines (c2sp.org/tlog-cosignature), which x/mod does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	when := binary.BigEndian.Uint64(sig[:8])
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", when)
	return ed25519.Verify(c.key, append([]byte(head), msg...), sig[8:])
}

func newCosigner(vkey string) (note.Verifier, error) {
	name, rest, ok := strings.Cut(vkey, "+")
	_, text, ok2 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || !ok2 || err != nil || len(raw) != 33 || raw[0] != 4 {
		return nil, fmt.Errorf("malformed witness key")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), raw...))
	return cosigner{name, binary.BigEndian.Uint32(sum[:4]), raw[1:]}, nil
}

func hash(b []byte) (h tlog.Hash, err error) {
	if len(b) != tlog.HashSize {
		return h, fmt.Errorf("a hash has %d bytes", tlog.HashSize)
	}
	copy(h[:], b)
	return h, nil
}

func hashes(list [][]byte) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, b := range list {
		h, err := hash(b)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func openNote(q question) (answer, error) {
	v, err := note.NewVerifier(q.Vkey)
	if err != nil {
		return answer{}, err
	}
	list := []note.Verifier{v}
	for _, vkey := range q.Witness {
		w, err := newCosigner(vkey)
		if err != nil {
			return answer{}, err
		}
		list = append(list, w)
	}
	n, err := note.Open(q.Note, note.VerifierList(list...))
	if err != nil {
		return answer{}, err
	}
	return answer{Verified: len(n.Sigs)}, nil
}

func signNote(q question) (answer, error) {
	s, err := note.NewSigner(q.Skey)
	if err != nil {
		return answer{}, err
	}
	msg, err := note.Sign(&note.Note{Text: q.Text}, s)
	return answer{Note: msg}, err
}

func checkRecord(q question) error {
	leaf, err := hash(q.Leaf)
	if err != nil {
		return err
	}
	root, err := hash(q.Root)
	if err != nil {
		return err
	}
	proof, err := hashes(q.Proof)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, q.Size, root, q.Index, leaf)
}

func checkTree(q question) error {
	root, err := hash(q.Root)
	if err != nil {
		return err
	}
	old, err := hash(q.OldRoot)
	if err != nil {
		return err
	}
	proof, err := hashes(q.Proof)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, q.Size, root, q.OldSize, old)
}

type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, m[i])
	}
	return out, nil
}

func raw(list []tlog.Hash) [][]byte {
	out := [][]byte{}
	for i := range list {
		out = append(out, list[i][:])
	}
	return out
}

func prove(q question) (a answer, err error) {
	var m memory
	size := int64(len(q.Entries))
	for i, entry := range q.Entries {
		stored, err := tlog.StoredHashes(int64(i), entry, m)
		if err != nil {
			return a, err
		}
		m = append(m, stored...)
		root, err := tlog.TreeHash(int64(i)+1, m)
		if err != nil {
			return a, err
		}
		a.Roots = append(a.Roots, append([]byte{}, root[:]...))
	}
	for i := int64(0); i < size; i++ {
		record, err := tlog.ProveRecord(size, i, m)
		if err != nil {
			return a, err
		}
		a.Records = append(a.Records, raw(record))
		tree, err := tlog.ProveTree(size, i+1, m)
		if err != nil {
			return a, err
		}
		a.Trees = append(a.Trees, raw(tree))
	}
	return a, nil
}

// tiles serves tiles out of memory; c2sp.org/tlog-tiles leaves the height 8 out of Go's paths.
type tiles map[string][]byte

func (t tiles) Height() int                     { return 8 }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range list {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, ok := t[path]
		if !ok {
			return nil, fmt.Errorf("no tile %s", path)
		}
		out = append(out, data)
	}
	return out, nil
}

// readTiles authenticates every hash that it needs against the root, proves each record with
// hashes from tiles alone, and checks each proof.
func readTiles(q question) (a answer, err error) {
	root, err := hash(q.Root)
	if err != nil {
		return a, err
	}
	reader := tlog.TileHashReader(tlog.Tree{N: q.Size, Hash: root}, tiles(q.Tiles))
	for i := int64(0); i < q.Size; i++ {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err != nil {
			return a, err
		}
		proof, err := tlog.ProveRecord(q.Size, i, reader)
		if err != nil {
			return a, err
		}
		if err := tlog.CheckRecord(proof, q.Size, root, i, leaf[0]); err != nil {
			return a, err
		}
		a.Verified++
		a.Roots = append(a.Roots, append([]byte{}, leaf[0][:]...))
	}
	return a, nil
}

func ask(q question) (a answer) {
	var err error
	switch q.Kind {
	case "note":
		a, err = openNote(q)
	case "sign":
		a, err = signNote(q)
	case "record":
		err = checkRecord(q)
	case "tree":
		err = checkTree(q)
	case "prove":
		a, err = prove(q)
	case "tiles":
		a, err = readTiles(q)
	default:
		err = fmt.Errorf("unknown question %q", q.Kind)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answers := []answer{}
	for _, q := range questions {
		answers = append(answers, ask(q))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		os.Exit(1)
	}
}
