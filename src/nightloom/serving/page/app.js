"use strict";
// What is chosen and dismissed lives in this page alone; dismissals, and votes on reasons, are sent as feedback, under the answer's token.
const at = (id) => document.getElementById(id);
const chosen = [], gone = new Set();
let shown = [], asked = 0, next = null, wanted = "", typed = 0;

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  const found = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  if (found.status === 401 && !at("ask").open) {
    at("ask").showModal();
    await new Promise((done) => at("ask").addEventListener("close", done, { once: true }));
    sessionStorage.setItem("key", at("key").value);
    return call(path, body);
  }
  const said = await found.json();
  if (!found.ok) throw new Error(said.detail);
  return said;
}

function make(tag, text, more = {}) {
  const one = Object.assign(document.createElement(tag), more);
  one.textContent = text;
  return one;
}

function button(text, label, action) {
  const one = make("button", text, { type: "button" });
  one.setAttribute("aria-label", label);
  one.addEventListener("click", action);
  return one;
}

function showChosen() {
  at("chosen").replaceChildren(...chosen.map((item) => {
    const line = make("li", "");
    line.append(make("span", item.title), button("×", `Take away ${item.title}`, () => {
      chosen.splice(chosen.indexOf(item), 1);
      refresh();
    }));
    return line;
  }));
  at("none").hidden = chosen.length > 0;
  at("clear").hidden = chosen.length + gone.size === 0;
}

function tags(item) {
  const words = Object.entries(item.columns || {}).filter(([name]) => name !== "title").map(([, value]) => [].concat(value).join(", "));
  return words.join(" · ").replaceAll("|", ", ").slice(0, 120);
}

// The sentence, and a bar for each thing that was chosen: how much of the reasons it is.
function reason(item) {
  if (!item.reason || !chosen.length) return [];
  const box = make("details", "", { className: "why" }), bars = make("div", "");
  box.append(make("summary", item.reason.text), bars);
  const shares = new Map(item.reason.events.map((event) => [event.item_id, event.share]));
  bars.append(...chosen.map((one) => {
    const line = make("div", "", { className: "bar" }), share = shares.get(one.item_id) || 0, bar = make("meter", "", { min: 0, max: 1, value: share });
    bar.setAttribute("aria-label", `Part of ${one.title} in the reasons`);
    line.append(make("span", one.title), bar, make("span", `${Math.round(100 * share)} %`, { className: "place" }));
    return line;
  }));
  bars.append(voteOn(item));
  return [box];
}

const words = navigator.language.startsWith("zh")
  ? { ask: "这条理由有帮助吗？", helpful: "有帮助", not_helpful: "没帮助", thanks: "谢谢您的反馈。", lang: "zh" }
  : { ask: "Is this reason helpful?", helpful: "Helpful", not_helpful: "Not helpful", thanks: "Thank you.", lang: "en" };
const voted = new Set();

// Two small buttons below a reason; a vote is sent once for each answer and item.
function voteOn(item) {
  const box = make("div", "", { className: "vote", role: "group", lang: words.lang }), mark = `${item.token} ${item.item_id}`;
  box.setAttribute("aria-label", `${words.ask} ${item.title || item.item_id}`);
  const thank = () => box.replaceChildren(make("span", words.thanks, { role: "status" }));
  if (voted.has(mark)) thank();
  else box.append(make("span", words.ask), ...["helpful", "not_helpful"].map((kind) => button(words[kind], words[kind], () => {
    voted.add(mark);
    thank();
    feedback(item, { kind, reason: item.reason.kind });
  })));
  return box;
}

function feedback(item, said) {
  const id = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  const body = { feedback_id: id, token: item.token, item_id: item.item_id, timestamp: Date.now() / 1000, ...said };
  call("/feedback", body).catch(() => {});
}

function showItems() {
  const left = shown.filter((item) => !gone.has(item.item_id));
  at("items").replaceChildren(...left.map((item, place) => {
    const line = make("li", ""), text = make("span", item.title || item.item_id), buttons = make("span", "", { className: "buttons" });
    text.append(make("span", tags(item), { className: "tags" }), ...reason(item));
    buttons.append(
      button("I like it", `I like ${item.title}`, () => choose(item)),
      button("Like this", `Similar to ${item.title}`, () => near(item)),
      button("×", `Not ${item.title}`, () => dismiss(item)),
    );
    line.append(make("span", `${place + 1}`, { className: "place" }), text, buttons);
    return line;
  }));
  at("more").hidden = next === null;
}

async function refresh(page = null) {
  showChosen();
  const mine = ++asked;
  try {
    const body = { history: chosen.map((item) => item.item_id), k: 20, columns, explain: true };
    if (page) body.page = page;
    if (wanted) body.query = wanted;
    const said = await call("/recommend", body);
    if (mine !== asked) return;
    shown = page ? shown.concat(said.items) : said.items;
    for (const item of said.items) item.token = said.token;
    next = said.next;
    showWanted(said.meaning);
    at("fault").textContent = "";
    showItems();
  } catch (error) {
    at("fault").textContent = error.message;
  }
}

function showWanted(meaning) {
  at("asked").hidden = !wanted;
  at("asked").replaceChildren(
    make("span", `“${wanted}”${meaning === false ? ", by words of titles and attributes alone" : ""}${shown.length ? "" : ": nothing found"} `),
    button("×", "Ask for nothing in words", () => ask("")),
  );
}

function ask(words) {
  wanted = words;
  typed++;
  at("words").value = "";
  at("found").replaceChildren();
  refresh();
}

function choose(item) {
  if (!chosen.some((one) => one.item_id === item.item_id)) chosen.push(item);
  at("words").value = "";
  at("found").replaceChildren();
  refresh();
}

function dismiss(item) {
  gone.add(item.item_id);
  showChosen();
  showItems();
  feedback(item, { kind: "dismiss" });
}

async function near(item) {
  const said = await call(`/similar?k=8&items=${encodeURIComponent(item.item_id)}`);
  at("near-title").textContent = `Like ${item.title}`;
  at("near-items").replaceChildren(...said.items.map((one) => {
    const line = make("li", "");
    line.append(button(one.title, `I like ${one.title}`, () => { at("near").close(); choose(one); }));
    return line;
  }));
  at("near").showModal();
}

at("words").addEventListener("input", () => {
  const mine = ++typed;
  setTimeout(async () => {
    if (mine !== typed) return;
    const words = at("words").value.trim();
    const said = words ? await call(`/search?k=8&q=${encodeURIComponent(words)}`) : { items: [] };
    if (mine !== typed) return;
    at("found").replaceChildren(...said.items.map((item) => {
      const line = make("li", "");
      line.append(button(item.title, `Choose ${item.title}`, () => choose(item)));
      return line;
    }));
  }, 120);
});
at("words").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && at("words").value.trim()) ask(at("words").value.trim());
});
at("clear").addEventListener("click", () => { chosen.length = 0; gone.clear(); ask(""); });
at("more").addEventListener("click", () => refresh(next));

let columns = [];
call("/version").then((said) => {
  columns = (said.model ? said.model.columns : []).slice(0, 4);
  refresh();
});
