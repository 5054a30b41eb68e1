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
// They print what the C programs print: see load.h and, for crowd, crowd.c.
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

// crowd holds locks and has goroutines wait for them.
type crowd interface {
	hold(lock int)
	await(lock int, queued func()) // calls queued when it stands in the queue
	release(lock int)
}

// kept is a crowd on one session and one watch, by the rules of concurrency.Mutex.
type kept struct {
	session *concurrency.Session
	mutex   sync.Mutex
	next    int64
	mine    []string                 // the keys that hold, by lock
	waiters map[string]chan struct{} // by the key that has to go
	gone    map[string]bool          // keys that went
}

func newKept(client *clientv3.Client) *kept {
	k := &kept{
		session: newSession(client, ttl), mine: make([]string, *held),
		waiters: map[string]chan struct{}{}, gone: map[string]bool{},
	}
	watch := client.Watch(background, *prefix+"/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	go k.listen(watch)
	return k
}

func (k *kept) listen(watch clientv3.WatchChan) {
	for answer := range watch {
		check(answer.Err())
		k.mutex.Lock()
		for _, event := range answer.Events {
			key := string(event.Kv.Key)
			if waiter := k.waiters[key]; waiter != nil {
				delete(k.waiters, key)
				close(waiter)
			} else {
				k.gone[key] = true
			}
		}
		k.mutex.Unlock()
	}
}

// join queues for a lock; returns its key and the key before it, if there is one.
func (k *kept) join(lock int) (key, before string) {
	start := fmt.Sprintf("%s/lock-%d/", *prefix, lock)
	key = fmt.Sprintf("%s%x.%x", start, k.session.Lease(), atomic.AddInt64(&k.next, 1))
	put := clientv3.OpPut(key, "", clientv3.WithLease(k.session.Lease()))
	last := clientv3.OpGet(start, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(2),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend))
	answer, err := k.session.Client().Txn(background).Then(put, last).Commit()
	check(err)
	if found := answer.Responses[1].GetResponseRange().Kvs; len(found) > 1 {
		before = string(found[1].Key)
	}
	return key, before
}

func (k *kept) hold(lock int) {
	k.mine[lock], _ = k.join(lock)
}

// turn is closed when a key has gone.
func (k *kept) turn(before string) chan struct{} {
	turn := make(chan struct{})
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if before == "" || k.gone[before] {
		delete(k.gone, before)
		close(turn)
	} else {
		k.waiters[before] = turn
	}
	return turn
}

func (k *kept) await(lock int, queued func()) {
	key, before := k.join(lock)
	turn := k.turn(before)
	queued()
	<-turn
	k.drop(key)
}

func (k *kept) drop(key string) {
	_, err := k.session.Client().Delete(background, key)
	check(err)
}

func (k *kept) release(lock int) {
	k.drop(k.mine[lock])
}

// apart is a crowd of Mutexes, each with a session of its own.
type apart struct {
	client *clientv3.Client
	mine   []*concurrency.Mutex
}

func (a *apart) mutex(lock int) *concurrency.Mutex {
	return concurrency.NewMutex(newSession(a.client, ttlOfMany), fmt.Sprintf("%s/lock-%d", *prefix, lock))
}

func (a *apart) hold(lock int) {
	a.mine[lock] = a.mutex(lock)
	check(a.mine[lock].Lock(background))
}

func (a *apart) await(lock int, queued func()) {
	mutex := a.mutex(lock)
	queued()
	check(mutex.Lock(background))
	check(mutex.Unlock(background))
}

func (a *apart) release(lock int) {
	check(a.mine[lock].Unlock(background))
}

// inParallel calls what for 0 to n-1, 64 at a time.
func inParallel(n int, what func(int)) {
	var all sync.WaitGroup
	next := int64(-1)
	for w := 0; w < 64; w++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := atomic.AddInt64(&next, 1); i < int64(n); i = atomic.AddInt64(&next, 1) {
				what(int(i))
			}
		}()
	}
	all.Wait()
}

// ask looks up a key that does not exist.
func ask(client *clientv3.Client) times {
	var all []time.Duration
	for i := 0; i < 1000; i++ {
		start := time.Now()
		_, err := client.Get(background, *prefix+"/nobody")
		check(err)
		all = append(all, time.Since(start))
		time.Sleep(time.Millisecond)
	}
	return summary(all)
}

// reached says that a step is reached and waits for a line.
func reached(step string, since time.Time, asked *times) {
	line := map[string]interface{}{"step": step, "seconds": time.Since(since).Seconds()}
	if asked != nil {
		line["ask"] = asked
	}
	say(line)
	var unused string
	if _, err := fmt.Scanln(&unused); err != nil && err.Error() != "unexpected newline" {
		log.Fatal(err)
	}
}

// queue starts the waiters; returns when they stand in the queue.
func queue(c crowd, done *sync.WaitGroup) {
	inParallel(*waiting, func(i int) {
		lock := i % *held
		if i < *waiting/2 {
			lock = 0
		}
		done.Add(1)
		var queued sync.WaitGroup
		queued.Add(1)
		go func() {
			defer done.Done()
			c.await(lock, queued.Done)
		}()
		queued.Wait()
	})
}

func crowded() {
	var c crowd
	var done sync.WaitGroup
	client := newClient()
	if *each {
		c = &apart{client, make([]*concurrency.Mutex, *held)}
	} else {
		c = newKept(client)
	}
	asked := ask(client)
	reached("ready", time.Now(), &asked)
	start := time.Now()
	inParallel(*held, c.hold)
	reached("held", start, nil)
	start = time.Now()
	queue(c, &done)
	reached("waiting", start, nil)
	asked = ask(client)
	reached("asked", time.Now(), &asked)
	start = time.Now()
	inParallel(*held, c.release)
	done.Wait()
	reached("done", start, nil)
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
