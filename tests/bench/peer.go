// SPDX-License-Identifier: MIT

// What a Go program does on the same etcd, with the client's own concurrency package.
//
//	peer [OPTION...] lock       -n goroutines, each with a lock of its own: concurrency.Mutex,
//	                            all on one session
//	peer [OPTION...] contend    -n goroutines on one lock, each with a session of its own, spread
//	                            over -clients clients
//	peer [OPTION...] try        like lock, with Mutex.TryLock
//	peer [OPTION...] crowd      -held locks held and -waiting goroutines that wait; on one session
//	                            and one watch, or with -each on Mutexes with a session each
//
// They print what the C programs print: see load.h and, for crowd, crowd.c.  The crowd is in
// peer_crowd.go.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

var (
	endpoints = flag.String("endpoints", "http://127.0.0.1:2379", "separated by commas")
	prefix    = flag.String("prefix", "/peer", "of all keys")
	number    = flag.Int("n", 1, "goroutines")
	clients   = flag.Int("clients", 1, "connections, for contend")
	seconds   = flag.Float64("s", 2, "seconds that count")
	warmup    = flag.Float64("w", 0.5, "seconds before that")
	held      = flag.Int("held", 10000, "for crowd")
	waiting   = flag.Int("waiting", 10000, "for crowd")
	each      = flag.Bool("each", false, "for crowd: a session for each")
)

var background = context.Background()

// The default of latchfs, so that a lease costs the same.
const ttl = 10

// The default of a session, for very many of them: with the other, etcd is too busy with them.
const ttlOfMany = 60

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}

func newClient() *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(*endpoints, ","),
		DialTimeout: 10 * time.Second,
	})
	check(err)
	return client
}

func newSession(client *clientv3.Client, ttl int) *concurrency.Session {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	check(err)
	return session
}

// times is a T of load.h.
type times struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50,omitempty"`
	P99 float64 `json:"p99,omitempty"`
	Max float64 `json:"max,omitempty"`
}

func summary(all []time.Duration) times {
	n := len(all)
	if n == 0 {
		return times{}
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	micros := func(i int) float64 { return float64(all[i].Nanoseconds()) / 1e3 }
	return times{n, micros(n / 2), micros(n - 1 - n/100), micros(n - 1)}
}

func say(line interface{}) {
	text, err := json.Marshal(line)
	check(err)
	fmt.Println(string(text))
}

// record is what one goroutine measured.
type record struct {
	take, give, pair, handover []time.Duration
}

func (r *record) add(other *record) {
	r.take = append(r.take, other.take...)
	r.give = append(r.give, other.give...)
	r.pair = append(r.pair, other.pair...)
	r.handover = append(r.handover, other.handover...)
}

// stage sees to it that only one is inside, and when the last one began to leave.
type stage struct {
	inside   int32
	last     int32
	released time.Time
}

func (s *stage) enter(who int32, now time.Time) (handover time.Duration) {
	if other := atomic.SwapInt32(&s.inside, who); other != 0 {
		log.Fatalf("MUTUAL EXCLUSION VIOLATED: %d and %d", other-1, who-1)
	}
	if s.last != 0 && s.last != who {
		handover = now.Sub(s.released)
	}
	return handover
}

func (s *stage) leave(who int32) {
	s.last = who
	atomic.StoreInt32(&s.inside, 0)
	s.released = time.Now()
}

// worker takes and gives back one lock.
type worker struct {
	take, give func() error
}

func (w *worker) cycle(one *stage, who int32) (times [3]time.Duration) {
	start := time.Now()
	check(w.take())
	now := time.Now()
	times[0] = now.Sub(start)
	if one != nil {
		times[2] = one.enter(who, now)
		one.leave(who)
	}
	start = time.Now()
	check(w.give())
	times[1] = time.Since(start)
	return times
}

const (
	warming = iota
	recording
	stopping
)

func (w *worker) work(one *stage, who int32, phase *int32) *record {
	r := &record{}
	for atomic.LoadInt32(phase) != stopping {
		t := w.cycle(one, who)
		if atomic.LoadInt32(phase) != recording {
			continue
		}
		r.take = append(r.take, t[0])
		r.give = append(r.give, t[1])
		r.pair = append(r.pair, t[0]+t[1])
		if t[2] != 0 {
			r.handover = append(r.handover, t[2])
		}
	}
	return r
}

// run lets all workers work at the same time; those on one lock share a stage.
func run(workers []worker, one *stage) {
	var all sync.WaitGroup
	var phase int32
	records := make([]*record, len(workers))
	for i := range workers {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			records[i] = workers[i].work(one, int32(i+1), &phase)
		}(i)
	}
	time.Sleep(duration(*warmup))
	start := time.Now()
	atomic.StoreInt32(&phase, recording)
	time.Sleep(duration(*seconds))
	atomic.StoreInt32(&phase, stopping)
	elapsed := time.Since(start)
	all.Wait()
	report(records, elapsed)
}

func report(records []*record, elapsed time.Duration) {
	sum := &record{}
	for _, r := range records {
		sum.add(r)
	}
	say(map[string]interface{}{
		"rate":     float64(len(sum.pair)) / elapsed.Seconds(),
		"take":     summary(sum.take),
		"give":     summary(sum.give),
		"pair":     summary(sum.pair),
		"handover": summary(sum.handover),
	})
}

func mutexWorker(session *concurrency.Session, key string) worker {
	mutex := concurrency.NewMutex(session, key)
	return worker{
		take: func() error { return mutex.Lock(background) },
		give: func() error { return mutex.Unlock(background) },
	}
}

func lockDistinct() {
	session := newSession(newClient(), ttl)
	defer session.Close()
	workers := make([]worker, *number)
	for i := range workers {
		workers[i] = mutexWorker(session, fmt.Sprintf("%s/lock-%d", *prefix, i))
	}
	run(workers, nil)
}

func contend() {
	var connections []*clientv3.Client
	for i := 0; i < *clients; i++ {
		connections = append(connections, newClient())
	}
	workers := make([]worker, *number)
	for i := range workers {
		session := newSession(connections[i%*clients], ttl)
		defer session.Close()
		workers[i] = mutexWorker(session, *prefix+"/lock-0")
	}
	run(workers, &stage{})
}

// tryWorker does what Mutex.TryLock of the 3.5 client does, which the 3.4 client does not have.
func tryWorker(session *concurrency.Session, name string) worker {
	client := session.Client()
	key := fmt.Sprintf("%s/%x", name, session.Lease())
	try := func() error {
		free := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
		put := clientv3.OpPut(key, "", clientv3.WithLease(session.Lease()))
		get := clientv3.OpGet(key)
		owner := clientv3.OpGet(name+"/", clientv3.WithFirstCreate()...)
		answer, err := client.Txn(background).If(free).Then(put, owner).Else(get, owner).Commit()
		if err != nil {
			return err
		}
		first := answer.Responses[1].GetResponseRange().Kvs
		if !answer.Succeeded || (len(first) > 0 && first[0].CreateRevision != answer.Header.Revision) {
			return fmt.Errorf("%s is held already", name)
		}
		return nil
	}
	return worker{try, func() error {
		_, err := client.Delete(background, key)
		return err
	}}
}

func tryDistinct() {
	session := newSession(newClient(), ttl)
	defer session.Close()
	workers := make([]worker, *number)
	for i := range workers {
		workers[i] = tryWorker(session, fmt.Sprintf("%s/lock-%d", *prefix, i))
	}
	run(workers, nil)
}

func main() {
	flag.Parse()
	modes := map[string]func(){
		"lock": lockDistinct, "contend": contend, "try": tryDistinct, "crowd": crowded,
	}
	mode := modes[flag.Arg(0)]
	if mode == nil {
		log.Fatal("usage: see the head of peer.go")
	}
	mode()
}
