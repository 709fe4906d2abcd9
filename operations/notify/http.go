package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Headers of a request to a receiver of kind webhook.
const (
	// HeaderID is the id of the message: the same when it is sent again.
	HeaderID = "Leat-Notification-Id"
	// HeaderSignature is "t=<unix seconds>,v1=<hex>": HMAC-SHA256 under the receiver's secret of "<unix seconds>.<body>".
	HeaderSignature = "Leat-Signature"
)

// Sign returns the value of HeaderSignature for a body that is sent at a time.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// post returns a delivery by HTTP.
func (s *sender) post(version string) func(ctx context.Context, m *Message) (Answer, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: s.TLS, ForceAttemptHTTP2: true, IdleConnTimeout: 30 * time.Second,
		TLSHandshakeTimeout: s.timeout,
	}
	client := &http.Client{
		Transport: transport, Timeout: s.timeout,
		// The address is a secret, and a redirection could carry it, or the message, anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, m *Message) (Answer, error) {
		body, err := s.body(m)
		if err != nil {
			return Answer{}, &refusal{text: err.Error(), final: true}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.String(), bytes.NewReader(body))
		if err != nil {
			return Answer{}, &refusal{text: "its url is not one", final: true}
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", "leat/"+version)
		if s.Kind == "webhook" {
			req.Header.Set(HeaderID, m.ID)
			if s.Secret != "" {
				req.Header.Set(HeaderSignature, Sign(s.Secret, time.Now(), body))
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			if ue := (*url.Error)(nil); errors.As(err, &ue) {
				err = ue.Err // what is around it names the URL
			}
			return Answer{}, fmt.Errorf("no answer: %w", err)
		}
		defer func() { _ = resp.Body.Close() }()
		return answer(resp)
	}
}

// answer reads what came back.
func answer(resp *http.Response) (Answer, error) {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what there is of it explains the status
	a := Answer{Status: resp.Status, Body: strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD"))}
	if resp.StatusCode/100 == 2 {
		return a, nil
	}
	r := &refusal{text: strings.TrimSpace("answers " + a.Status + " " + a.Body)}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		r.final = resp.StatusCode < 500
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		r.after = time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	if resp.StatusCode/100 == 3 {
		r.text = "answers " + a.Status + ", and redirections are not followed"
	}
	return a, r
}
