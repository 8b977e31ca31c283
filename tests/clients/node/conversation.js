// What a smoke says to the test that runs it, line by line: see ../python/conversation.py, which says it in the same way.
'use strict';

const crypto = require('node:crypto');
const readline = require('node:readline');
const { createRequire } = require('node:module');

const SHOWN_MAX = 120;

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** A library from where deploy/clients.sh has put it. */
const library = createRequire(`${process.env.NODE_LIBRARIES}/`);

function record(label, value) {
  process.stdout.write(`= ${label}: ${show(value)}\n`);
}

async function order(what) {
  process.stdout.write(`! ${what}\n`);
  if ((await answers.next()).done) throw new Error('the test is gone');
}

/** The smoke is over; what a library leaves open does not keep the process. */
function end() {
  record('the end', true);
  process.stdout.write('', () => process.exit(0));
}

function show(value) {
  if (Buffer.isBuffer(value)) return `Buffer ${shorten(value, value.toString('latin1'))}`;
  if (typeof value === 'string') return shorten(Buffer.from(value), value);
  if (value instanceof Error) return `${value.name}(${value.message})`;
  if (value instanceof Set) return `Set ${show([...value].sort())}`;
  if (value instanceof Map) return `Map ${show([...value.entries()].map((pair) => show(pair)).sort())}`;
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (value !== null && typeof value === 'object') {
    return `{${Object.keys(value).sort().map((key) => `${show(key)}: ${show(value[key])}`).join(', ')}}`;
  }
  return String(value);
}

function shorten(bytes, text) {
  if (bytes.length <= SHOWN_MAX) return JSON.stringify(text);
  return `${bytes.length} bytes, ${crypto.createHash('sha256').update(bytes).digest('hex').slice(0, 16)}`;
}

module.exports = { end, library, order, record };
