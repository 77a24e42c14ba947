// As much of a browser's document as the view uses, for tests without a browser.

class Node {
  parent = null;
  children = [];
}

class Text extends Node {
  constructor(text) {
    super();
    this.data = text;
  }
  get textContent() {
    return this.data;
  }
  all() {
    return [];
  }
}

class Element extends Node {
  attributes = {};
  style = {};
  dataset = {};
  listeners = {};
  hidden = false;
  classList = { toggle: (name, on) => (this.classes[on ? "add" : "delete"](name), on) };
  classes = new Set();
  constructor(tag) {
    super();
    this.tagName = tag;
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  getAttribute(name) {
    return this.attributes[name] ?? null;
  }
  addEventListener(name, act) {
    this.listeners[name] = act;
  }
  append(...children) {
    for (const child of children) this.children.push(child instanceof Node ? child : new Text(String(child)));
  }
  replaceChildren(...children) {
    this.children = [];
    this.append(...children);
  }
  get firstChild() {
    return this.children[0] ?? null;
  }
  get textContent() {
    return this.children.map((child) => child.textContent).join("");
  }
  set textContent(text) {
    this.children = [new Text(String(text))];
  }
  all(tag) {
    return this.children.flatMap((child) => [...(child.tagName === tag ? [child] : []), ...child.all(tag)]);
  }
}

export class FakeDocument {
  static Node = Node;
  createElement(tag) {
    return new Element(tag);
  }
  createElementNS(_namespace, tag) {
    return new Element(tag);
  }
}
