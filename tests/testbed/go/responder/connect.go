// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"time"
)

const getSeconds = 5 * time.Second

// connect asks again and again, by a new connection each time or over one that has to last, and ends
// with 1 unless every question was answered.
func connect(arguments []string) {
	flags := flag.NewFlagSet("connect", flag.ExitOnError)
	udp := flags.Bool("udp", false, "by datagrams")
	wait := flags.Duration("wait", time.Second, "how long an answer may take")
	count := flags.Int("count", 1, "how many questions; 0: until the standard input ends")
	keep := flags.Bool("keep", false, "over one connection")
	every := flags.Duration("every", 0, "from one question to the next")
	sum := flags.Bool("sum", false, "print how many were answered instead of the answers")
	deaf := flags.Bool("deaf", false, "do not wait for answers")
	flags.Parse(arguments)
	if flags.NArg() != 1 {
		usage()
	}
	network := "tcp"
	if *udp {
		network = "udp"
	}
	if *deaf {
		shout(network, flags.Arg(0), *count, *every)
		return
	}
	question := ask
	if *keep {
		question = overOne()
	}
	ended := make(chan struct{})
	if *count == 0 {
		*count = math.MaxInt
		go func() {
			io.Copy(io.Discard, os.Stdin)
			close(ended)
		}()
	}
	answered, asked := 0, 0
	for over := false; asked < *count && !over; asked++ {
		answer, err := question(network, flags.Arg(0), *wait)
		switch {
		case err != nil:
			fmt.Fprintf(os.Stderr, "responder: %v\n", err)
		case !*sum:
			fmt.Print(answer)
		}
		if err == nil {
			answered++
		}
		if asked+1 < *count {
			select {
			case <-ended:
				over = true
			case <-time.After(*every):
			}
		}
	}
	if *sum {
		fmt.Printf("answered %d of %d\n", answered, asked)
	}
	if answered < asked {
		os.Exit(1)
	}
}

func ask(network, address string, wait time.Duration) (string, error) {
	connection, err := net.DialTimeout(network, address, wait)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	return exchange(connection, bufio.NewReader(connection), wait)
}

func exchange(connection net.Conn, answers *bufio.Reader, wait time.Duration) (string, error) {
	connection.SetDeadline(time.Now().Add(wait))
	if _, err := fmt.Fprintln(connection, "who?"); err != nil {
		return "", err
	}
	return answers.ReadString('\n')
}

// overOne asks over the connection of the first question, whatever became of it.
func overOne() func(network, address string, wait time.Duration) (string, error) {
	var connection net.Conn
	var answers *bufio.Reader
	return func(network, address string, wait time.Duration) (string, error) {
		if connection == nil {
			var err error
			if connection, err = net.DialTimeout(network, address, wait); err != nil {
				connection = nil
				return "", err
			}
			answers = bufio.NewReader(connection)
		}
		return exchange(connection, answers, wait)
	}
}

func get(arguments []string) {
	if len(arguments) != 2 {
		usage()
	}
	client := http.Client{Timeout: getSeconds}
	answer, err := client.Get("http://" + arguments[0] + arguments[1])
	if err != nil {
		failed(err)
	}
	defer answer.Body.Close()
	io.Copy(os.Stdout, answer.Body)
}

// shout sends datagrams from one socket, numbered from 1, whatever happens to them.
func shout(network, address string, count int, every time.Duration) {
	connection, err := net.Dial(network, address)
	for ; err != nil; connection, err = net.Dial(network, address) {
		time.Sleep(every)
	}
	for number := 1; number <= count; number++ {
		fmt.Fprintln(connection, number)
		time.Sleep(every)
	}
}
