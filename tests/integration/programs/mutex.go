// SPDX-License-Identifier: MIT

// Takes a lock the way any Go service on etcd does, with concurrency.Mutex.
//
//	mutex ENDPOINT KEY      says "held", holds until its input ends, says "free"
//	mutex ENDPOINT KEY N M  M goroutines, each with its own session, add up to N rounds;
//	                        the counter is read from and written to the file given in $COUNTER
//
// The TTL of its leases is 60 s, or $TTL.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

func mutex(client *clientv3.Client, key string) (*concurrency.Session, *concurrency.Mutex) {
	ttl := 60
	if given := os.Getenv("TTL"); given != "" {
		ttl = number(given)
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		log.Fatal(err)
	}
	return session, concurrency.NewMutex(session, key)
}

func hold(client *clientv3.Client, key string) {
	session, lock := mutex(client, key)
	defer session.Close()
	if err := lock.Lock(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	if err := lock.Unlock(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("free")
}

func increment(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(fmt.Sprintln(n+1)), 0666); err != nil {
		log.Fatal(err)
	}
}

func count(client *clientv3.Client, key string, rounds, goroutines int) {
	var all sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			session, lock := mutex(client, key)
			defer session.Close()
			for n := 0; n < rounds; n++ {
				if err := lock.Lock(context.Background()); err != nil {
					log.Fatal(err)
				}
				increment(os.Getenv("COUNTER"))
				if err := lock.Unlock(context.Background()); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	all.Wait()
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if len(os.Args) == 3 {
		hold(client, os.Args[2])
	} else {
		count(client, os.Args[2], number(os.Args[3]), number(os.Args[4]))
	}
}
