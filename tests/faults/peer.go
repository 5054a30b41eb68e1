// SPDX-License-Identifier: MIT

// A service that locks with Go's concurrency.Mutex, and writes down what it sees as worker.c does.
//
//	peer ENDPOINTS PREFIX NAME SEED LOCKS HISTORY REGISTERS
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"golang.org/x/sys/unix"
)

const entrySize = 64

var (
	history   *os.File
	registers string
	number    int
)

func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		log.Fatal(err)
	}
	return t.Nano()
}

func note(at int64, format string, arguments ...interface{}) {
	if _, err := fmt.Fprintf(history, "%d %s\n", at, fmt.Sprintf(format, arguments...)); err != nil {
		log.Fatal(err)
	}
}

// carry runs one operation of a register: it gets the newest token and value, and gives the entry
// to append, or "" to refuse.
func carry(lock int, operation func(token, value int64) string) bool {
	file, err := os.OpenFile(filepath.Join(registers, strconv.Itoa(lock)),
		os.O_RDWR|os.O_CREATE|os.O_APPEND, 0666)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		log.Fatal(err)
	}
	token, value := newest(file)
	entry := operation(token, value)
	if entry != "" {
		fmt.Fprintf(file, "%-*s\n", entrySize-1, entry)
	}
	return entry != ""
}

func newest(file *os.File) (token, value int64) {
	info, err := file.Stat()
	if err != nil {
		log.Fatal(err)
	}
	for end := info.Size(); end >= entrySize; end -= entrySize {
		var text [entrySize]byte
		if _, err := file.ReadAt(text[:], end-entrySize); err != nil {
			log.Fatal(err)
		}
		fields := strings.Fields(string(text[:]))
		if token == 0 {
			token, _ = strconv.ParseInt(fields[0], 10, 64)
		}
		if fields[1] != "read" {
			value, _ = strconv.ParseInt(fields[1], 10, 64)
			return
		}
	}
	return
}

func count(lock int, token int64) {
	var value int64
	fresh := carry(lock, func(newest, found int64) string {
		value = found + 1
		if newest > token {
			return ""
		}
		return fmt.Sprint(token, " read")
	}) && carry(lock, func(newest, found int64) string {
		if newest > token {
			return ""
		}
		return fmt.Sprint(token, " ", value)
	})
	if fresh {
		note(now(), "write %d %d %d", number, token, value)
	} else {
		note(now(), "stale %d %d", number, token)
	}
}

// confirmed says whether the lock is still ours, asking the store.
func confirmed(ctx context.Context, client *clientv3.Client, lock *concurrency.Mutex) bool {
	begun := now()
	answer, err := client.Get(ctx, lock.Key())
	if err != nil || answer.Count == 0 {
		return false
	}
	note(begun, "seen %d", number)
	return true
}

// A cycle that fails gives its session up, and with it what it may have left in the store.
func cycle(ctx context.Context, client *clientv3.Client, session *concurrency.Session,
	prefix string, n int) error {
	lock := concurrency.NewMutex(session, prefix+"/"+strconv.Itoa(n))
	number++
	note(now(), "call %d %d X mutex", number, n)
	err := lock.Lock(ctx)
	answered := now()
	if err != nil {
		note(answered, "refused %d %d lock", number, int(syscall.EINTR))
		return err
	}
	answer, err := client.Get(ctx, lock.Key())
	if err != nil || answer.Count == 0 {
		note(answered, "granted %d 0", number)
		return fmt.Errorf("the lock cannot be confirmed: %v", err)
	}
	token := answer.Kvs[0].CreateRevision
	note(answered, "granted %d %d", number, token)
	if confirmed(ctx, client, lock) {
		count(n, token)
		time.Sleep(time.Duration(rand.Intn(10)) * time.Millisecond)
		confirmed(ctx, client, lock)
	}
	note(now(), "release %d", number)
	if err := lock.Unlock(ctx); err != nil {
		return err
	}
	note(now(), "released %d", number)
	return nil
}

func run(ctx context.Context, client *clientv3.Client, prefix string, locks int) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(15))
	if err != nil {
		return err
	}
	defer session.Close()
	for ctx.Err() == nil {
		deadline, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := cycle(deadline, client, session, prefix, rand.Intn(locks))
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func main() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(os.Args[1], ","), DialTimeout: 5 * time.Second,
		Username: os.Getenv("PEER_USER"), Password: os.Getenv("PEER_PASSWORD"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	seed, _ := strconv.ParseInt(os.Args[4], 10, 64)
	rand.Seed(seed)
	locks, _ := strconv.Atoi(os.Args[5])
	history, err = os.OpenFile(os.Args[6], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0666)
	if err != nil {
		log.Fatal(err)
	}
	registers = os.Args[7]
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	for ctx.Err() == nil {
		run(ctx, client, os.Args[2], locks)
		time.Sleep(20 * time.Millisecond)
	}
	note(now(), "end")
}
