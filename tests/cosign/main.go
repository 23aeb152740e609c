// A registry in memory that has the referrers API, which Debian's docker-registry does not have: for the tests.
package main

import (
	"flag"
	"log"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:5000", "where to listen")
	certificate := flag.String("certificate", "", "the certificate of TLS, a PEM file; without it, plain HTTP")
	key := flag.String("key", "", "the key of TLS, a PEM file")
	flag.Parse()
	handler := registry.New(registry.WithReferrersSupport(true))
	if *certificate == "" {
		log.Fatal(http.ListenAndServe(*address, handler))
	}
	log.Fatal(http.ListenAndServeTLS(*address, *certificate, *key, handler))
}
