/* Decision regions of Gaussian classes in a plane, for the cross-entropy and for the balanced softmax. */
(box, data, { el, svg, text, picture, range, says, list, fixed, add }) => {
  const C = data.classes.length;
  const reach = data.reach;
  const side = 300;
  const at = (v) => (side * (v + reach)) / (2 * reach);
  const counts = [...data.counts];
  let k = data.exponent;

  /* The standard normal distribution function (Abramowitz and Stegun 1964, 7.1.26). */
  const phi = (v) => {
    const t = 1 / (1 + (0.3275911 * Math.abs(v)) / Math.SQRT2);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const half = (tail * Math.exp((-v * v) / 2)) / 2;
    return v > 0 ? 1 - half : half;
  };
  const centre = (i) => data.classes[i].slice(1, 3);
  /* Class i wins over j where a x + b y > c, for what is added to the logs of p(v|i). */
  const border = (i, j, added) => {
    const [[x, y], [u, v]] = [centre(i), centre(j)];
    return [x - u, y - v, (x * x + y * y - u * u - v * v) / 2 - added[i] + added[j]];
  };
  const borders = (i, added) => data.classes.map((_, j) => j).filter((j) => j !== i).map((j) => border(i, j, added));

  /* The share of class i that falls into its own region: in x by the distribution function, in y by a fine sum. */
  const share = (i, added) => {
    const [cx, cy] = centre(i);
    let sum = 0;
    for (let d = -7; d < 7; d += 0.02) {
      const y = cy + d + 0.01;
      let [low, high] = [-Infinity, Infinity];
      for (const [a, b, c] of borders(i, added)) {
        const edge = (c - b * y) / a;
        if (Math.abs(a) < 1e-12) { if (b * y <= c) high = -Infinity; }
        else if (a > 0) low = Math.max(low, edge);
        else high = Math.min(high, edge);
      }
      if (high > low) sum += 0.02 * (Math.exp(-((d + 0.01) ** 2) / 2) / Math.sqrt(2 * Math.PI)) * (phi(high - cx) - phi(low - cx));
    }
    return 100 * sum;
  };
  /* The region of class i in the window, as a path: a square from which each border cuts a part. */
  const region = (i, added) => {
    let shape = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => [x * reach, y * reach]);
    for (const [a, b, c] of borders(i, added)) {
      const cut = [];
      shape.forEach((p, m) => {
        const q = shape[(m + 1) % shape.length];
        const [s, t] = [a * p[0] + b * p[1] - c, a * q[0] + b * q[1] - c];
        if (s >= 0) cut.push(p);
        if (s * t < 0) cut.push([p[0] + ((q[0] - p[0]) * s) / (s - t), p[1] + ((q[1] - p[1]) * s) / (s - t)]);
      });
      shape = cut;
    }
    return shape.length ? 'M' + shape.map(([x, y]) => `${at(x).toFixed(1)} ${at(-y).toFixed(1)}`).join('L') + 'z' : '';
  };

  /* Training data: draws that are the same at every visit. */
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const draws = data.classes.map(([, x, y]) =>
    Array.from({ length: data.most }, () => {
      const [r, turn] = [Math.sqrt(-2 * Math.log(random())), 2 * Math.PI * random()];
      return `M${at(x + r * Math.cos(turn)).toFixed(1)} ${at(-y - r * Math.sin(turn)).toFixed(1)}h0`;
    })
  );

  const even = new Array(C).fill(0);
  const panel = (title) => {
    const image = picture(side, side + 24);
    const areas = data.classes.map(([, , , colour]) => svg('path', { fill: colour, 'fill-opacity': 0.3 }));
    const dots = data.classes.map(([, , , colour]) =>
      svg('path', { stroke: colour, 'stroke-width': 3, 'stroke-linecap': 'round', 'stroke-opacity': 0.55 })
    );
    const edges = data.classes.map((_, i) =>
      svg('path', { d: region(i, even), fill: 'none', stroke: 'currentColor', 'stroke-dasharray': '4 3', 'stroke-width': 0.8 })
    );
    const labels = data.classes.map(([name, x, y]) => text(at(x), at(-y) - 2, name, { 'text-anchor': 'middle', 'font-weight': 'bold', 'font-size': 14 }));
    const shares = data.classes.map(([, x, y]) => text(at(x), at(-y) + 14, '', { 'text-anchor': 'middle', 'font-weight': 'bold', 'font-size': 14 }));
    const heading = text(0, 13, title, { 'font-weight': 'bold' });
    image.append(heading, svg('g', { transform: 'translate(0 24)' }, ...areas, ...edges, ...dots, ...labels, ...shares));
    return (added, words) => {
      if (words) heading.textContent = words;
      const kept = data.classes.map((_, i) => share(i, added));
      data.classes.forEach((_, i) => {
        areas[i].setAttribute('d', region(i, added));
        dots[i].setAttribute('d', draws[i].slice(0, counts[i]).join(''));
        shares[i].textContent = `${fixed(kept[i])} %`;
      });
      image.setAttribute('aria-label', `${heading.textContent}: ` + list(data.classes.map(([name], i) => `${name} keeps ${fixed(kept[i])} %`)) + '.');
      return { kept, image };
    };
  };
  const [plain, balanced] = [panel('cross-entropy'), panel('balanced softmax')];

  const cells = data.classes.map(() => [el('td'), el('td'), el('td')]);
  const means = [el('td'), el('td')];
  const table = el('table', {},
    el('caption', {}, 'Test images of each class that fall into its own region'),
    el('thead', {}, el('tr', {}, ...['class', 'training images', 'cross-entropy', 'balanced softmax'].map((h) => el('th', { scope: 'col' }, h)))),
    el('tbody', {},
      ...data.classes.map(([name], i) => el('tr', {}, el('th', { scope: 'row' }, name), ...cells[i])),
      el('tr', {}, el('th', { scope: 'row' }, 'mean'), el('td'), ...means))
  );

  const put = () => {
    const log = counts.map(Math.log);
    const words = k === null ? '' : `balanced softmax, weights n^−${k.toFixed(1)}`;
    const [ce, bs] = [plain(log), balanced(log.map((l) => -(k ?? 0) * l), words)];
    const mean = (values) => `${fixed(values.reduce((a, b) => a + b) / C, 1)} %`;
    data.classes.forEach((_, i) => [counts[i], `${fixed(ce.kept[i], 1)} %`, `${fixed(bs.kept[i], 1)} %`].forEach((v, j) => (cells[i][j].textContent = v)));
    [means[0].textContent, means[1].textContent] = [mean(ce.kept), mean(bs.kept)];
    const rare = counts.indexOf(Math.min(...counts));
    const name = data.classes[rare][0];
    const equal = counts.every((n) => n === counts[0]);
    says.textContent = equal
      ? `With ${counts[0]} images of each class both losses draw the same borders and keep ${mean(ce.kept)}.`
      : `With ${list(data.classes.map(([one], i) => `${counts[i]} ${one}`))} images, cross-entropy keeps ${fixed(ce.kept[rare])} % of ${name} ` +
        `and ${mean(ce.kept)} on average; the balanced softmax${k ? ` with weights n^−${k.toFixed(1)}` : ''} keeps ${fixed(bs.kept[rare])} % of ${name} and ${mean(bs.kept)} on average.`;
    return [ce.image, bs.image];
  };
  const steps = Math.round(20 * Math.log10(data.most));
  const count = (step) => Math.round(10 ** (step / 20));
  const sliders = data.classes.map(([name, , , colour], i) =>
    range(`n of ${name}`, {
      max: steps, value: Math.round(20 * Math.log10(counts[i])), colour,
      words: (step) => (count(step) === 1 ? '1 image' : `${count(step)} images`),
      moved: (step) => { counts[i] = count(step); put(); },
    }).node
  );
  if (k !== null)
    sliders.push(range('weight exponent k', {
      max: 20, value: Math.round(10 * k), words: (v) => `k = ${(v / 10).toFixed(1)}`, moved: (v) => { k = v / 10; put(); },
    }).node);
  add(el('div', { class: 'controls' }, ...sliders), el('div', { class: 'panels' }, ...put()), says, table);
};
