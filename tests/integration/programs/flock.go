// SPDX-License-Identifier: MIT

// Locks a file as Go programs do without a library.
//
//	flock try|wait FILE     says "held", holds until its input ends; busy: exit status 75
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
)

func main() {
	file, err := os.OpenFile(os.Args[2], os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		log.Fatal(err)
	}
	how := syscall.LOCK_EX
	if os.Args[1] == "try" {
		how |= syscall.LOCK_NB
	}
	err = syscall.Flock(int(file.Fd()), how)
	if err == syscall.EWOULDBLOCK {
		os.Exit(75)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_UN); err != nil {
		log.Fatal(err)
	}
}
