// Receive every event of a pipeline exactly once, from Node.js; docs/stream.md is the protocol.
//
//   npm install zeromq @msgpack/msgpack
//   node subscribe.mjs tcp://127.0.0.1:5556 events.jsonl
//
// Appends a JSON line per event to the file and takes its place from the last line when it starts, so what is
// written and how far it has come cannot disagree, whenever it is killed. A new file begins with the oldest event.
import { appendFileSync, existsSync, readFileSync, truncateSync } from "node:fs";
import { decode, encode } from "@msgpack/msgpack";
import { Dealer, Subscriber } from "zeromq";

const [address = "tcp://127.0.0.1:5556", file = "events.jsonl"] = process.argv.slice(2);
const read = (part) => (part[0] === 0x7b ? JSON.parse(part.toString()) : decode(part)); // "{" is JSON
let place = { log: "", next: 0 };
if (existsSync(file)) {
  const bytes = readFileSync(file);
  truncateSync(file, bytes.lastIndexOf(10) + 1); // a line that was cut off was not written
  const last = bytes.subarray(0, bytes.lastIndexOf(10) + 1).toString().trimEnd().split("\n").pop();
  if (last) place = { log: JSON.parse(last).log, next: JSON.parse(last).sequence + 1 };
}

function put(log, event) {
  appendFileSync(file, JSON.stringify({ log, ...event }) + "\n");
  place = { log, next: event.sequence + 1 };
}

let dealer, replay, id = 0;
async function ask(request) {
  for (;;) {
    await dealer.send(encode({ schema: "framewire.replay/1", id: ++id, ...request }));
    try {
      for (;;) {
        const [head, ...records] = (await dealer.receive()).map(read);
        if (head.id === id && head.error) throw new Error(head.error);
        if (head.id === id) return [head, records];
      }
    } catch (error) {
      if (error.code !== "EAGAIN") throw error; // no answer within a second: ask again
    }
  }
}

async function catchUp() {
  for (let more = true; more; ) {
    const [head, events] = await ask({ do: "events", from: place.next, ...(place.log && { log: place.log }) });
    const same = head.log === place.log || head.continued;
    if (place.log && !same) console.error("another event log has begun");
    else if (place.log && head.from > place.next) console.error(`${head.from - place.next} events are no longer kept`);
    for (const event of events) put(head.log, event);
    place = { log: head.log, next: head.to };
    more = head.to < head.next && events.length > 0;
  }
}

const live = new Subscriber();
live.connect(address);
live.subscribe("framewire.log/");
for await (const [topic, payload] of live) {
  const log = topic.toString().split("/")[1];
  const message = read(payload);
  if (log === "heartbeat") {
    if (message.replay !== replay) {
      dealer?.close();
      dealer = new Dealer({ receiveTimeout: 1000, linger: 0 });
      dealer.connect((replay = message.replay).replace(/\/\/(0\.0\.0\.0|\*|\[::\])/, address.match(/\/\/[^:]+/)?.[0]));
    }
    if (message.log !== place.log || message.next > place.next) await catchUp();
  } else if (dealer && log === place.log && message.sequence === place.next) put(log, message);
  else if (dealer && (log !== place.log || message.sequence > place.next)) await catchUp();
}
