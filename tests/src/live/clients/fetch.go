// Asks an address for names over TLS, each on a connection of its own:
// fetch ADDRESS CA NAME/MILLISECONDS...
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func ask(address string, roots *x509.CertPool, name string, limit time.Duration) (string, error) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, "443"))
	}
	client := http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			DialContext:         dial,
			DisableKeepAlives:   true,
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			TLSHandshakeTimeout: limit,
		},
	}
	response, err := client.Get("https://" + name + "/")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func main() {
	pem, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var all sync.WaitGroup
	for _, wanted := range os.Args[3:] {
		name, limit, _ := strings.Cut(wanted, "/")
		milliseconds, err := strconv.Atoi(limit)
		if err != nil {
			panic(err)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			body, err := ask(os.Args[1], roots, name, time.Duration(milliseconds)*time.Millisecond)
			if err != nil {
				fmt.Fprintln(os.Stderr, name, err)
			}
			if strings.Contains(body, "served "+name+"\n") {
				fmt.Println(name)
			}
		}()
	}
	all.Wait()
}
