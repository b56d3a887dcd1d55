/* What all moving figures are made with: kit(box) gives tools that append to `box`. */
(box) => {
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
    }
    node.append(...children.filter((child) => child !== undefined));
    return node;
  };
  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
  const text = (x, y, words, more = {}) => svg('text', { x, y, ...more }, words);

  /* A picture of w x h units whose words for the ear are set at each move. */
  const picture = (w, h, more = {}) => svg('svg', { viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': '', ...more });

  /* A native slider with its name and its value in words; `moved` is called with its number. */
  const range = (name, { min = 0, max, step = 1, value, words, colour, moved }) => {
    const input = el('input', { type: 'range', min, max, step, value, autocomplete: 'off', 'data-lm-suppress-shortcuts': 'true' });
    const said = el('output', { 'aria-hidden': 'true' });
    if (colour) input.style.accentColor = colour;
    const tell = () => {
      said.textContent = words(+input.value);
      input.setAttribute('aria-valuetext', said.textContent);
    };
    const go = (to) => {
      input.value = to;
      tell();
      moved(+input.value);
    };
    input.addEventListener('input', () => go(input.value));
    tell();
    return { node: el('label', { class: 'range' }, el('span', {}, name), input, said), input, go, quiet: (to) => { input.value = to; tell(); }, get value() { return +input.value; } };
  };

  const choice = (name, options, chosen, moved) => {
    const select = el('select', { autocomplete: 'off' });
    const refill = (list, at) => {
      select.replaceChildren(...list.map(([value, words]) => new Option(words, value)));
      select.value = at;
    };
    refill(options, chosen);
    select.addEventListener('change', () => moved(select.value));
    return { node: el('label', {}, `${name} `, select), select, refill };
  };

  const radios = (name, options, chosen, moved) => {
    const group = `r${Math.random()}`;
    const labels = options.map((words, i) => {
      const input = el('input', { type: 'radio', name: group, checked: i === chosen, autocomplete: 'off' });
      input.addEventListener('change', () => moved(i));
      return el('label', {}, input, ` ${words}`);
    });
    return el('fieldset', {}, el('legend', { class: 'hush' }, name), ...labels);
  };

  /* Ticks of an axis; `at` turns a value into a place. */
  const ticks = (values, at, y, side) =>
    values.map((v) =>
      side === 'bottom'
        ? text(at(v), y, String(v), { 'text-anchor': 'middle' })
        : text(y, at(v) + 4, String(v), { 'text-anchor': 'end' })
    );

  const says = el('p', { class: 'says', role: 'status' });
  const list = (words) => (words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);
  const add = (...nodes) => box.append(...nodes);
  /* A number to read, rounded as Python rounds it in the text: what is exactly in the middle goes to the even digit. */
  const fixed = (v, digits = 0) => {
    const exact = Math.abs(v).toFixed(60);
    const cut = exact.indexOf('.') + (digits && digits + 1);
    const middle = /^50*$/.test(exact.slice(exact.indexOf('.') + 1 + digits));
    return (v < 0 ? '-' : '') + (middle && /[02468]$/.test(exact.slice(0, cut)) ? exact.slice(0, cut) : Math.abs(v).toFixed(digits));
  };
  /* Where a pointer is in a picture's own units. */
  const spot = (image, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(image.getScreenCTM().inverse());
  return { el, svg, text, picture, range, choice, radios, ticks, says, list, fixed, add, spot };
};
