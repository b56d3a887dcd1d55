/* The information plane: the frontier, its point and tangent; the encoder of the point as flows; what is kept. */
(box, data, { el, svg, text, picture, range, radios, ticks, says, list, fixed, add, spot }) => {
  const [input, output] = data.nouns;
  const n = data.x.length;
  const order = data.x.map((_, i) => (i + data.first) % n); // the circle of inputs, cut where few words cross
  let world = data.worlds[0];

  const shown = (beta) => beta.toFixed(beta < 0.0995 ? 3 : 2);

  /* --- the plane */
  const [W, H, left, right, top, bottom] = [340, 292, 40, 330, 12, 246];
  const reach = [Math.max(...data.worlds.map((w) => w.h)) * 1.02, Math.max(...data.worlds.map((w) => w.i)) * 1.12];
  const px = (v) => left + ((right - left) * v) / reach[0];
  const py = (v) => bottom - ((bottom - top) * v) / reach[1];
  const steps = (to) => { const by = to > 2 ? 0.5 : 0.2; return Array.from({ length: Math.floor(to / by) + 1 }, (_, i) => +(i * by).toFixed(1)); };
  const plane = picture(W, H);
  const curve = svg('path', { fill: 'none', stroke: 'currentColor', 'stroke-width': 2 });
  const all = svg('path', { fill: 'none', stroke: 'currentColor', 'stroke-dasharray': '2 4' });
  const allWords = text(right, 0, 'all that the ' + input + ' tells', { 'text-anchor': 'end' });
  const tangent = svg('path', { stroke: '#2f7fc1', 'stroke-width': 2, 'stroke-dasharray': '7 4' });
  const dot = svg('circle', { r: 8, fill: '#2f7fc1', stroke: 'currentColor', 'stroke-width': 1.5, 'pointer-events': 'none' });
  const grip = svg('circle', { r: 24, fill: 'transparent', class: 'grab' });
  plane.append(
    svg('path', { d: `M${left} ${top}V${bottom}H${right}`, fill: 'none', stroke: 'currentColor' }),
    ...ticks(steps(reach[0]), px, bottom + 16, 'bottom'),
    ...ticks(steps(reach[1]), py, left - 6, 'left'),
    text((left + right) / 2, H - 10, `I(X;T), kept of the ${input} (nats)`, { 'text-anchor': 'middle' }),
    text(0, 0, `I(T;Y), told of the ${output} (nats)`, { 'text-anchor': 'middle', transform: `translate(10 ${(top + bottom) / 2}) rotate(-90)` }),
    all, allWords, tangent, curve, dot, grip
  );

  /* --- the encoder */
  const [row, head, x1, x2, x3, wide] = [22, 24, 58, 176, 246, 340];
  const encoder = picture(wide, head + n * row + 6);
  const flows = svg('g');
  encoder.append(
    text(x1 - 4, 14, input, { 'text-anchor': 'end', 'font-weight': 'bold' }),
    text(x2, 14, `code word: its belief`, { 'font-weight': 'bold' }),
    ...order.flatMap((x, place) => [
      text(x1 - 18, head + place * row + 15, data.x[x][0], { 'text-anchor': 'end' }),
      svg('rect', { x: x1 - 12, y: head + place * row + 0.5, width: 12, height: row - 1, fill: data.x[x][1] }),
    ]),
    flows
  );

  const belief = (word) => {
    const joint = data.y.map((_, y) => word.reduce((sum, q, x) => sum + q * world.p[x][y], 0));
    const total = joint.reduce((a, b) => a + b, 0);
    return joint.map((v) => v / total);
  };
  const most = (values) => values.indexOf(Math.max(...values));
  /* The words of a point in the order of their inputs, each with the place of its top. */
  const wordsOf = (at) => {
    const found = world.words[at].map((pairs) => {
      const word = new Array(n).fill(0);
      for (let i = 0; i < pairs.length; i += 2) word[pairs[i]] = pairs[i + 1];
      const mass = word.reduce((a, b) => a + b, 0) / 1000;
      const centre = order.reduce((sum, x, place) => sum + (word[x] / 1000) * place, 0) / mass;
      return { word, mass, centre, belief: belief(word) };
    });
    found.sort((a, b) => a.centre - b.centre);
    let y = 0;
    for (const one of found) {
      one.top = y;
      y += one.mass;
    }
    return found;
  };
  const drawFlows = (words) => {
    const used = new Array(n).fill(0);
    const parts = [];
    for (const one of words) {
      let y = one.top;
      order.forEach((x, place) => {
        const q = one.word[x] / 1000;
        if (!q) return;
        const a = head + (place + used[x]) * row;
        const b = head + y * row;
        const middle = (x1 + x2) / 2;
        parts.push(svg('path', {
          d: `M${x1} ${a}C${middle} ${a} ${middle} ${b} ${x2} ${b}v${q * row}C${middle} ${b + q * row} ${middle} ${a + q * row} ${x1} ${a + q * row}z`,
          fill: data.x[x][1], 'fill-opacity': 0.6,
        }));
        used[x] += q;
        y += q;
      });
    }
    for (const one of words) {
      const y = head + one.top * row;
      const tall = one.mass * row;
      let x = x2;
      one.belief.forEach((p, i) => {
        parts.push(svg('rect', { x, y: y + 1, width: p * (x3 - x2), height: Math.max(tall - 2, 0.5), fill: data.y[i][1] }));
        x += p * (x3 - x2);
      });
      parts.push(svg('rect', { x: x2, y: y + 1, width: x3 - x2, height: Math.max(tall - 2, 0.5), fill: 'none', stroke: 'currentColor' }));
      const best = most(one.belief);
      if (tall > 11) parts.push(text(x3 + 5, y + tall / 2 + 4, `${data.y[best][0]} ${fixed(100 * one.belief[best])} %`));
    }
    flows.replaceChildren(...parts);
  };

  /* --- what is kept */
  const kept = el('ul', { class: 'bars' });
  const rows = data.y.map(([name, colour]) => {
    const share = el('span');
    const inside = el('span', { style: `background:${colour}` });
    kept.append(el('li', {}, `${name} `, share, el('span', { class: 'bar', 'aria-hidden': 'true' }, inside)));
    return { share, inside };
  });

  /* --- all at once */
  const put = (at) => {
    const [a, b] = world.points[at];
    const beta = data.betas[at];
    for (const circle of [dot, grip]) {
      circle.setAttribute('cx', px(a));
      circle.setAttribute('cy', py(b));
    }
    const run = Math.min(0.45, 60 / Math.hypot(px(1) - px(0), beta * (py(0) - py(1))));
    tangent.setAttribute('d', `M${px(a - run)} ${py(b - beta * run)}L${px(a + run)} ${py(b + beta * run)}`);
    const words = wordsOf(at);
    drawFlows(words);
    rows.forEach(({ share, inside }, y) => {
      share.textContent = `${world.kept[at][y]} %`;
      inside.style.width = `${world.kept[at][y]}%`;
    });
    const share = fixed((100 * b) / world.i);
    const point = `keeps ${fixed(a, 2)} of ${fixed(world.h, 2)} nats of the ${input} and tells ${fixed(b, 2)} of ${fixed(world.i, 2)} nats (${share} %) of the ${output}`;
    const least = world.kept[at].indexOf(Math.min(...world.kept[at]));
    const joined = words.map((one) => {
      const members = order.filter((x) => one.word[x] >= 500).map((x) => data.x[x][0]);
      const best = most(one.belief);
      return members.length ? `${list(members)} as ${data.y[best][0]} (${fixed(100 * one.belief[best])} %)` : '';
    }).filter(Boolean);
    const count = words.length === 1 ? 'one code word' : `${words.length} code words`;
    says.textContent =
      `At β = ${shown(beta)} the note ${point}, with ${count}. ` +
      (words.length === 1 ? 'It says nothing.' : world.kept[at].every((k) => k === world.kept[at][least]) ? `It keeps ${world.kept[at][least]} % of each ${output}.` :
        `It keeps least of ${data.y[least][0]}, ${world.kept[at][least]} %.`);
    plane.setAttribute('aria-label', `The information plane of the ${world.name}. On the frontier, at β = ${beta}, the note ${point}.`);
    encoder.setAttribute('aria-label', `The encoder: ${joined.join('; ')}.`);
  };
  const slider = range('price β', {
    max: data.betas.length - 1, value: data.start, moved: put,
    words: (at) => `β = ${shown(data.betas[at])}`,
  });
  const turn = (i) => {
    world = data.worlds[i];
    curve.setAttribute('d', 'M' + world.points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join('L'));
    all.setAttribute('d', `M${left} ${py(world.i)}H${right}`);
    allWords.setAttribute('y', py(world.i) - 5);
    put(slider.value);
  };

  /* --- the point is dragged: the nearest point of the frontier */
  const nearest = (event) => {
    const { x, y } = spot(plane, event);
    const far = world.points.map(([a, b]) => Math.hypot(px(a) - x, py(b) - y));
    hint.remove();
    slider.go(far.indexOf(Math.min(...far)));
  };
  const hint = text(0, 0, 'drag', { 'font-weight': 'bold', 'pointer-events': 'none' });
  const start = world.points[data.start];
  hint.setAttribute('x', px(start[0]) + 14);
  hint.setAttribute('y', py(start[1]) + 16);
  plane.append(hint);
  slider.input.addEventListener('input', () => hint.remove());
  let held = false;
  plane.addEventListener('pointerdown', (event) => {
    if (event.pointerType !== 'mouse' && event.target !== grip) return;
    held = true;
    plane.setPointerCapture(event.pointerId);
    event.preventDefault();
    nearest(event);
  });
  plane.addEventListener('pointermove', (event) => held && nearest(event));
  for (const end of ['pointerup', 'pointercancel']) plane.addEventListener(end, () => (held = false));
  plane.addEventListener('click', nearest);

  const worlds = data.worlds.length > 1 ? [radios('world', data.worlds.map((w) => w.name), 0, turn)] : [];
  add(
    el('div', { class: 'controls' }, ...worlds, slider.node),
    el('div', { class: 'panels' }, plane, encoder),
    says,
    el('p', {}, `Of what the ${input} tells of each ${output}, judged where all are equally frequent, is kept:`),
    kept
  );
  turn(0);
};
