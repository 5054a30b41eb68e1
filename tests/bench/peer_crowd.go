// SPDX-License-Identifier: MIT

// Many locks held and many goroutines that wait: the steps of crowd.c, in Go.
package main

import (
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

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
	watch := client.Watch(background, *prefix+"/", clientv3.WithPrefix(),
		clientv3.WithFilterPut())
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
	last := clientv3.OpGet(start, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend))
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
	session := newSession(a.client, ttlOfMany)
	return concurrency.NewMutex(session, fmt.Sprintf("%s/lock-%d", *prefix, lock))
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
