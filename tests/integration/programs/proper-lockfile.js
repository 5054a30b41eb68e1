#!/usr/bin/node
// SPDX-License-Identifier: MIT
// Takes a lock with proper-lockfile: proper-lockfile.js try|wait PATH STALE_MILLISECONDS
//
// Prints "held", and gives the lock back when its input ends.  Prints "compromised" if it hears
// that the lock was taken away.  Exits with 75 if somebody else has it.
"use strict";

const lockfile = require("proper-lockfile");

const [how, path, stale] = process.argv.slice(2);
const options = {
  lockfilePath: path,
  realpath: false, // of the file that is protected, which need not exist
  stale: Number(stale),
  update: 1000,
  retries: how === "wait" ? { forever: true, factor: 1, minTimeout: 50, maxTimeout: 50 } : 0,
  onCompromised: (error) => console.log("compromised", error.code),
};

lockfile.lock(path, options).then(
  (release) => {
    console.log("held");
    process.stdin.resume();
    process.stdin.on("end", () => release().then(() => process.exit(0), () => process.exit(1)));
  },
  (error) => {
    console.log(error.code);
    process.exit(error.code === "ELOCKED" ? 75 : 1);
  },
);
