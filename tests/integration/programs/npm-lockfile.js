#!/usr/bin/node
// SPDX-License-Identifier: MIT
// Takes a lock with npm's lockfile: npm-lockfile.js MODULE PATH STALE_MILLISECONDS
//
// Prints "held", and gives the lock back when its input ends.  Exits with 75 if somebody has it.
"use strict";

const [module_path, path, stale] = process.argv.slice(2);
const lockfile = require(module_path);

lockfile.lock(path, { stale: Number(stale) }, (error) => {
  if (error) {
    console.log(error.code);
    process.exit(error.code === "EEXIST" ? 75 : 1);
  }
  console.log("held");
  process.stdin.resume();
  process.stdin.on("end", () => {
    lockfile.unlockSync(path);
    process.exit(0);
  });
});
