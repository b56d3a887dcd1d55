/* Accuracy of each class against its size, for two methods that the reader picks. */
(box, data, { el, svg, text, picture, choice, says, list, fixed, add, spot }) => {
  const W = box.clientWidth && box.clientWidth < 480 ? 340 : 520; // a phone gets letters of the same size
  const [H, left, right, top, bottom] = [340, 42, W - 10, 40, 296];
  const image = picture(W, H, { style: 'max-width:640px' });
  const plot = svg('g');
  const frame = svg('g');
  image.append(frame, plot);
  const shape = (kind, x, y, r) => ({
    o: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
    s: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    '^': `M${x} ${y - r * 1.2}l${r * 1.2} ${r * 2.1}h${-2.4 * r}z`,
    v: `M${x} ${y + r * 1.2}l${r * 1.2} ${-r * 2.1}h${-2.4 * r}z`,
    D: `M${x} ${y - r * 1.3}l${r * 1.3} ${r * 1.3}l${-r * 1.3} ${r * 1.3}l${-r * 1.3} ${-r * 1.3}z`,
  })[kind];

  let [set, pair, chosen] = [0, [...data.start], -1];
  const now = () => data.sets[set];
  const method = (key) => data.methods[key];
  const py = (v) => bottom - ((bottom - top) * v) / 100;
  let px;
  const inGroup = ([, above, to]) => now().counts.map((n, i) => (n > above && n <= to ? i : -1)).filter((i) => i >= 0);
  const mean = (key, [name, those]) => now().means[key]?.[name] ?? those.reduce((sum, i) => sum + now().accuracy[key][i], 0) / those.length;

  /* A local line through the classes of about the same size, by weights that fall with the distance in log n. */
  const smooth = (key) => {
    const [x, y] = [now().counts.map(Math.log), now().accuracy[key]];
    const [low, high] = [Math.min(...x), Math.max(...x)];
    return Array.from({ length: 41 }, (_, m) => {
      const at = low + ((high - low) * m) / 40;
      let [w0, w1, w2, s0, s1] = [0, 0, 0, 0, 0];
      x.forEach((v, i) => {
        const [d, w] = [v - at, Math.exp(-(((v - at) / 0.5) ** 2) / 2)];
        w0 += w; w1 += w * d; w2 += w * d * d; s0 += w * y[i]; s1 += w * d * y[i];
      });
      return [Math.exp(at), Math.min(100, Math.max(0, (s0 * w2 - s1 * w1) / (w0 * w2 - w1 * w1)))];
    });
  };

  const head = [el('th', { scope: 'col' }), el('th', { scope: 'col' }), el('th', { scope: 'col' }, 'difference')];
  const body = el('tbody');
  const table = el('table', {}, el('caption', {}, 'Mean accuracy over classes (%)'),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'classes'), ...head)), body);
  const one = el('p');
  const difference = (a, b) => `${a - b < 0 ? '−' : '+'}${fixed(Math.abs(a - b), 1)}`.replace(/[−+]0\.0$/, '0.0');

  const put = () => {
    const { counts, accuracy, names } = now();
    const shown = [...new Set(pair)];
    const [low, high] = [Math.min(...counts) / 1.15, Math.max(...counts) * 1.15];
    px = (n) => left + ((right - left) * Math.log(n / low)) / Math.log(high / low);
    const marks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((n) => n >= low && n <= high);
    frame.replaceChildren(
      svg('path', { d: `M${left} ${top}V${bottom}H${right}`, fill: 'none', stroke: 'currentColor' }),
      ...marks.map((n) => text(px(n), bottom + 16, String(n), { 'text-anchor': 'middle' })),
      ...[0, 20, 40, 60, 80, 100].map((v) => text(left - 6, py(v) + 4, String(v), { 'text-anchor': 'end' })),
      text((left + right) / 2, H - 12, 'training images of the class (log)', { 'text-anchor': 'middle' }),
      text(0, 0, 'test accuracy (%)', { 'text-anchor': 'middle', transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)` }),
      ...data.groups.filter(([, above]) => above > low && above < high).map(([, above]) =>
        svg('path', { d: `M${px(above)} ${top}V${bottom}`, stroke: 'currentColor', 'stroke-dasharray': '2 4', 'stroke-opacity': 0.7 }))
    );
    const parts = [];
    if (shown.length > 1)
      counts.forEach((n, i) => parts.push(svg('path', {
        d: `M${px(n)} ${py(accuracy[pair[1]][i])}V${py(accuracy[pair[0]][i])}`, stroke: 'currentColor', 'stroke-opacity': 0.3,
      })));
    for (const key of shown) {
      const { colour, mark } = method(key);
      const line = smooth(key).map(([n, v]) => `${px(n).toFixed(1)} ${py(v).toFixed(1)}`).join('L');
      parts.push(svg('path', { d: counts.map((n, i) => shape(mark, px(n), py(accuracy[key][i]), 3.6)).join(''), fill: colour, 'fill-opacity': 0.8 }));
      parts.push(svg('path', { d: `M${line}`, fill: 'none', stroke: colour, 'stroke-width': 3, 'stroke-dasharray': key === pair[0] ? undefined : '9 4' }));
    }
    /* Names above, and the groups below them. */
    shown.forEach((key, i) => {
      const { colour, mark } = method(key);
      const x = left + 4 + (i * (right - left)) / 2;
      parts.push(svg('path', { d: `M${x} 10h28`, stroke: colour, 'stroke-width': 3, 'stroke-dasharray': i ? '9 4' : undefined }));
      parts.push(svg('path', { d: shape(mark, x + 14, 10, 4.5), fill: colour }), text(x + 34, 14, method(key).name, { 'font-weight': 'bold' }));
    });
    for (const [name, above, to] of data.groups) {
      const [from, until] = [Math.max(above, low), Math.min(to, high)];
      if (from < until) parts.push(text((px(from) + px(until)) / 2, top - 6, name, { 'text-anchor': 'middle' }));
    }
    if (chosen >= 0)
      parts.push(svg('path', { d: `M${px(counts[chosen])} ${top}V${bottom}`, stroke: 'currentColor' }),
        ...shown.map((key) => svg('path', { d: shape('o', px(counts[chosen]), py(accuracy[key][chosen]), 8), fill: 'none', stroke: 'currentColor', 'stroke-width': 2 })));
    plot.replaceChildren(...parts);

    const [a, b] = pair;
    head[0].textContent = method(a).name;
    head[1].textContent = method(b).name;
    const groups = data.groups.map((group) => [group[0], inGroup(group)]).filter(([, those]) => those.length);
    groups.push(['all', counts.map((_, i) => i)]);
    body.replaceChildren(...groups.map((group) =>
      el('tr', {}, el('th', { scope: 'row' }, `${group[0]} (${group[1].length})`), el('td', {}, fixed(mean(a, group), 1)), el('td', {}, fixed(mean(b, group), 1)),
        el('td', {}, difference(mean(a, group), mean(b, group))))));
    const runs = (key) => `${now().runs[key]} run${now().runs[key] > 1 ? 's' : ''}`;
    if (a === b) says.textContent = `${now().name}: ${method(a).name}, ${runs(a)}. Choose another method to compare.`;
    else {
      const phrase = (group) => {
        const [gap, name] = [mean(a, group) - mean(b, group), group[0]];
        return `${fixed(Math.abs(gap), 1)} ${gap < 0 ? 'lower' : 'higher'} on ${name === 'all' ? 'all classes' : `${name}-shot classes`}`;
      };
      const better = counts.filter((_, i) => accuracy[a][i] > accuracy[b][i]).length;
      const worse = counts.filter((_, i) => accuracy[a][i] < accuracy[b][i]).length;
      says.textContent =
        `${now().name}, ${method(a).name} (${runs(a)}) against ${method(b).name} (${runs(b)}), in points of accuracy: ${list(groups.map(phrase))}. ` +
        `Of ${counts.length} classes, ${method(a).name} is higher on ${better} and lower on ${worse}.`;
    }
    image.setAttribute('aria-label', `Accuracy of each class against its number of training images. ${says.textContent}`);
    one.textContent = chosen < 0 ? '' :
      `${names[chosen]}, ${counts[chosen]} training image${counts[chosen] > 1 ? 's' : ''}: ` +
      list(shown.map((key) => `${method(key).name} ${fixed(accuracy[key][chosen])} %`)) + '.';
  };

  const keys = () => Object.keys(now().accuracy).map((key) => [key, method(key).name]);
  const picks = [0, 1].map((i) => choice(i ? 'against' : 'method', keys(), pair[i], (key) => { pair[i] = key; put(); }));
  const bySize = () => now().counts.map((n, i) => [n, i]).sort((p, q) => q[0] - p[0]).map(([n, i]) => [i, `${now().names[i]} (${n})`]);
  const classes = choice('class', [[-1, '–'], ...bySize()], -1, (i) => { chosen = +i; put(); });
  const sets = choice('data', data.sets.map((s, i) => [i, s.name]), 0, (i) => {
    set = +i;
    chosen = -1;
    pair = pair.map((key) => (key in now().accuracy ? key : Object.keys(now().accuracy)[0]));
    picks.forEach((pick, m) => pick.refill(keys(), pair[m]));
    classes.refill([[-1, '–'], ...bySize()], -1);
    put();
  });
  one.setAttribute('role', 'status');
  image.addEventListener('click', (event) => {
    const { x, y } = spot(image, event);
    const far = now().counts.map((n, i) => Math.min(...pair.map((key) => Math.hypot(px(n) - x, py(now().accuracy[key][i]) - y))));
    chosen = Math.min(...far) < 25 ? far.indexOf(Math.min(...far)) : -1;
    classes.select.value = chosen;
    put();
  });
  add(el('div', { class: 'controls' }, ...(data.sets.length > 1 ? [sets.node] : []), ...picks.map((p) => p.node), classes.node), image, one, says, table);
  put();
};
