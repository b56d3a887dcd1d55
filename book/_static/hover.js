/* Shows what a link leads to (an equation, a work, a term, a figure of this page) and what a symbol means.

   With a mouse it comes after a moment and stays while the pointer is on the link or on the note; from the keyboard it
   comes with the focus; a finger's first touch shows it, the second one follows the link. Escape closes it. Without this
   script all links lead where they lead. What is shown stands in hover-data.js (book/_ext/hover.py).
*/
(() => {
  const own = document.currentScript.src;
  const root = new URL("..", own);
  const KINDS = 'a.reference.internal:is(.term, .mention, [href*="references.html#"], [href*="#eq-"], [href*="#term-"])';
  const LINKS = `article :is(${KINDS}, a.reference.internal:has(.std-numref))`;
  const [WAIT, LEAVE] = [200, 250]; // milliseconds: for the note to come, and to go

  let loading;
  const data = () =>
    (loading ??= new Promise((done) => {
      const empty = { notes: {}, symbols: {}, betas: {} };
      const script = document.createElement("script");
      script.src = new URL("hover-data.js", own).href;
      script.onload = () => done(window.hoverData ?? empty);
      script.onerror = () => done(empty);
      document.head.append(script);
    }));

  const note = Object.assign(document.createElement("div"), { className: "hover-note", id: "hover-note", hidden: true });
  note.setAttribute("role", "tooltip");
  let [owner, timer, finger] = [null, 0, false];

  /* --- what is shown */
  const address = (link) => {
    const url = new URL(link.href);
    return url.href.startsWith(root.href) ? url.pathname.slice(root.pathname.length) + decodeURIComponent(url.hash) : "";
  };
  const figureOf = (link) => {
    const url = new URL(link.href);
    if (url.pathname !== location.pathname) return null;
    const target = document.getElementById(decodeURIComponent(url.hash.slice(1)));
    const figure = target?.closest("figure, table") ?? target?.querySelector("figure, table");
    const caption = figure?.querySelector("figcaption, caption");
    if (!caption) return null;
    const image = figure.querySelector("img")?.cloneNode();
    const words = document.createElement("p");
    words.textContent = caption.textContent.replace(/#\s*$/, "");
    return [...(image ? [image] : []), words];
  };
  const html = (text) => {
    const what = document.createElement("div");
    what.className = "what mathjax_process tex2jax_process";
    what.innerHTML = text;
    return [what];
  };
  const contents = async (thing) => {
    const { notes, symbols, betas } = await data();
    if (thing.matches("a")) {
      const found = notes[address(thing)];
      return found ? html(found) : figureOf(thing);
    }
    const key = symbolOf(thing).find((one) => one in symbols);
    if (!key) return null;
    const chapter = location.pathname.match(/\/(\d\d)_[^/]*$/)?.[1];
    return html((key === "β" && betas[chapter]) || symbols[key]);
  };

  /* --- symbols: a letter, with its index where it has one, as MathJax has drawn it */
  const letters = (node) =>
    [...node.querySelectorAll("mjx-c")]
      .map((c) => String.fromCodePoint(parseInt(/mjx-c([0-9A-F]+)/.exec(c.className)?.[1] ?? "20", 16)))
      .join("")
      .normalize("NFKC");
  const symbolAt = (target) => {
    if (location.pathname.endsWith("/notation.html")) return null;
    return target.closest?.("article :is(mjx-msub, mjx-msubsup)") ?? target.closest?.("article mjx-mi") ?? null;
  };
  const symbolOf = (node) => {
    if (!node.matches("mjx-msub, mjx-msubsup")) return [letters(node)];
    const script = node.querySelector(":scope > mjx-script");
    const base = letters(node.firstElementChild);
    const index = letters(node.matches("mjx-msub") ? script : script.lastElementChild);
    return [`${base}_${index}`, ...(/^[ijyC\d]$/.test(index) ? [`${base}_i`, base] : [])];
  };

  /* --- coming and going */
  const hide = () => {
    clearTimeout(timer);
    if (owner?.matches("a")) owner.removeAttribute("aria-describedby");
    owner?.classList.remove("hover-known");
    owner = null;
    note.hidden = true;
  };
  const place = (thing) => {
    const boxes = [...thing.getClientRects()];
    const at = boxes[0] ?? thing.getBoundingClientRect();
    note.style.left = note.style.top = "0";
    const { width, height } = note.getBoundingClientRect();
    const left = Math.max(12, Math.min(at.left, document.documentElement.clientWidth - width - 12));
    const last = boxes.at(-1) ?? at;
    const below = last.bottom + 4;
    const top = below + height > innerHeight && at.top - height - 4 > 60 ? at.top - height - 4 : below;
    note.style.left = `${left + scrollX}px`;
    note.style.top = `${top + scrollY}px`;
  };
  const show = async (thing) => {
    clearTimeout(timer);
    if (owner === thing) return true;
    hide();
    owner = thing;
    const found = await contents(thing);
    if (owner !== thing) return true; // gone meanwhile
    if (!found) {
      owner = null;
      return false;
    }
    if (!note.isConnected) document.body.append(note);
    note.replaceChildren(...found);
    if (thing.matches("a")) {
      thing.setAttribute("aria-describedby", note.id);
      if (finger) {
        const go = Object.assign(document.createElement("a"), { className: "go", href: thing.href, textContent: "Go there" });
        note.append(go);
      }
    } else thing.classList.add("hover-known");
    note.hidden = false;
    place(thing);
    await window.MathJax?.typesetPromise?.([note]);
    if (owner === thing) place(thing);
    return true;
  };
  const later = (thing, wait) => {
    clearTimeout(timer);
    timer = setTimeout(() => show(thing), wait);
  };
  const leave = () => {
    clearTimeout(timer);
    if (owner && owner !== document.activeElement) timer = setTimeout(hide, LEAVE);
  };

  const thingAt = (target) => target.closest?.(LINKS) ?? symbolAt(target);
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    if (event.target.closest?.(".hover-note")) return clearTimeout(timer);
    const thing = thingAt(event.target);
    if (!thing) return leave();
    thing.removeAttribute("title"); // the browser's own note would lie over ours
    if (thing === owner) clearTimeout(timer);
    else later(thing, thing.matches("a") ? WAIT : 2 * WAIT);
  });
  document.addEventListener("pointerdown", (event) => {
    finger = event.pointerType === "touch";
    if (owner && !note.contains(event.target) && thingAt(event.target) !== owner) hide();
  });
  document.addEventListener("focusin", (event) => {
    const link = event.target.closest?.(LINKS);
    if (link && link.matches(":focus-visible") && !finger) show(link);
    else if (owner && !note.contains(event.target) && !finger) hide();
  });
  document.addEventListener("focusout", (event) => event.target === owner && !note.matches(":hover") && hide());
  document.addEventListener("keydown", (event) => {
    finger = false;
    if (event.key === "Escape" && owner) hide();
  });
  document.addEventListener(
    "click",
    (event) => {
      if (!finger) return;
      const thing = thingAt(event.target);
      if (!thing || thing === owner) return;
      if (!thing.matches("a")) return void show(thing);
      event.preventDefault();
      show(thing).then((shown) => {
        if (!shown) location.href = thing.href;
      });
    },
    true
  );
  addEventListener("resize", hide);
})();
