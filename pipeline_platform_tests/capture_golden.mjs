// Captures the golden requests of rudder-sdk-node, as capture_golden.py does those of the SDKs for Python:
// `npm install @rudderstack/rudder-sdk-node`, then `node capture_golden.mjs > golden/rudder-sdk-node-VERSION-batch.json`.
import http from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "here.js"));
const Analytics = require("@rudderstack/rudder-sdk-node");
const { version } = require("@rudderstack/rudder-sdk-node/package.json");

const requests = [];
const recorder = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const headers = Object.entries(request.headers).filter(([name]) => name !== "host");
    const body = Buffer.concat(parts).toString("base64");
    requests.push({ method: request.method, path: request.url, headers, body });
    response.end('{"success":true}');
  });
});
await new Promise((ready) => recorder.listen(0, "127.0.0.1", ready));

const dataPlaneUrl = `http://127.0.0.1:${recorder.address().port}`;
const client = new (Analytics.default ?? Analytics)("golden-write-key", { dataPlaneUrl, gzip: false });
const context = { ip: "83.149.9.0", locale: "pt-BR" };
const traits = { email: "zoë@example.com", plan: "pro" };
client.identify({ userId: "user-1", context: { ...context, traits } });
const timestamp = new Date("2026-01-02T03:04:05.678Z");
client.track({ userId: "user-1", event: "Order Placed", properties: { total: 12.5 }, context, timestamp });
client.page({ anonymousId: "anon-1", category: "Docs", name: "Home", properties: { url: "https://shop.example/" } });
client.screen({ userId: 17, name: "Main", properties: { tags: ["a", "b"], none: null } });
client.group({ userId: "user-1", groupId: "group-9", traits: { name: "Acme", seats: 5 } });
client.alias({ previousId: "anon-1", userId: "user-1" });
await client.flush();
const sent = () => requests.flatMap(({ body }) => JSON.parse(Buffer.from(body, "base64")).batch);
while (sent().length < 6) await new Promise((again) => setTimeout(again, 50));

const message_ids = sent().map(({ messageId }) => messageId);
// JSON.stringify writes NaN as null: there is no event that is unsound.
const golden = { sdk: "rudder-sdk-node", version, message_ids, unsound_message_id: null, requests };
console.log(JSON.stringify(golden, null, 1));
process.exit(0);
