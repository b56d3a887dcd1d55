/* Two maps of the same images, side by side: the reader chooses what each shows, and points at a class. */
(box, data, { el, svg, text, picture, choice, radios, says, add, spot }) => {
  const [side, margin] = [300, 12];
  const shapes = ['M4 0A4 4 0 1 0-4 0A4 4 0 1 0 4 0', 'M-3.6-3.6H3.6V3.6H-3.6Z', 'M0-5L4.8 3.6H-4.8Z'];
  const mark = (group) => ({ d: shapes[group % 3], fill: data.groups[group][1] });
  let chosen = data.chosen;
  let variant = data.variant;

  const maps = data.start.map((start, place) => {
    const image = picture(side, side);
    const marks = data.y.map((c) => svg('path', mark(data.classes[c][2])));
    const name = text(0, 0, '', { 'font-weight': 'bold', 'text-anchor': 'middle', class: 'map-name' });
    image.append(svg('rect', { width: side, height: side, fill: 'none', stroke: 'currentColor', 'stroke-opacity': 0.3 }), ...marks, name);
    const map = { image, marks, name, at: start };
    const features = data.maps.map(([title], i) => [i, title]);
    map.pick = choice(place ? 'Right' : 'Left', features, start, (i) => {
      map.at = +i;
      turn();
    });
    image.addEventListener('pointermove', (event) => light(near(map, event)));
    image.addEventListener('pointerleave', () => light(-1));
    image.addEventListener('click', (event) => {
      const found = near(map, event);
      chosen = found === chosen ? -1 : found;
      classes.select.value = chosen;
      light(-1);
    });
    return map;
  });

  const places = (map) => data.maps[map.at][1][variant];
  const near = (map, event) => {
    const { x, y } = spot(map.image, event);
    let [best, found] = [16 ** 2, -1];
    data.y.forEach((c, i) => {
      const [px, py] = places(map)[i];
      const far = (px + margin - x) ** 2 + (py + margin - y) ** 2;
      if (far < best) [best, found] = [far, c];
    });
    return found;
  };

  const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
  /* Shows one class alone, or the chosen one again for -1. */
  const light = (c) => {
    const now = c < 0 ? chosen : c;
    for (const map of maps) {
      map.marks.forEach((node, i) => node.setAttribute('opacity', now < 0 || data.y[i] === now ? 1 : 0.16));
      map.name.textContent = now < 0 ? '' : data.classes[now][0];
      if (now < 0) continue;
      const own = places(map).filter((_, i) => data.y[i] === now);
      map.name.setAttribute('x', Math.min(side - 40, Math.max(40, middle(own.map((p) => p[0])) + margin)));
      map.name.setAttribute('y', Math.max(14, middle(own.map((p) => p[1])) + margin - 9));
    }
    const [left, right] = maps.map((map) => (now < 0 ? data.maps[map.at][3] : data.maps[map.at][2][now]));
    const who = now < 0 ? 'All twelve classes' : `${data.classes[now][0]}, ${data.classes[now][1]} training images`;
    const of = data.each * (now < 0 ? data.classes.length : 1);
    says.textContent = `${who}. In the features, ten neighbours name ${left} of ${of} images right on the left, and ${right} on the right.`;
    for (const map of maps) {
      const where = now < 0 ? 'Twelve classes' : data.classes[now][0];
      map.image.setAttribute('aria-label', `Map of ${data.maps[map.at][0]}, ${data.variants[variant]}. ${where}.`);
    }
  };
  const turn = () => {
    for (const map of maps) {
      places(map).forEach(([x, y], i) => { map.marks[i].style.transform = `translate(${x + margin}px, ${y + margin}px)`; });
    }
    light(-1);
  };

  const classes = choice('Class', [[-1, 'all twelve'], ...data.classes.map(([name, n], i) => [i, `${name} (${n})`])], chosen, (c) => {
    chosen = +c;
    light(-1);
  });
  const groups = data.groups.map(([name], i) =>
    el('span', { class: 'map-key' }, svg('svg', { viewBox: '-6 -6 12 12', 'aria-hidden': 'true' }, svg('path', mark(i))), ` ${name}`)
  );
  add(
    el('style', {}, `
      .moving .map-key svg { display: inline; width: 0.9em; height: 0.9em; }
      .moving .map-name { paint-order: stroke; stroke: var(--pst-color-background, Canvas); stroke-width: 4px; pointer-events: none; }
      .moving .panels svg { cursor: crosshair; }
      @media (prefers-reduced-motion: no-preference) { .moving .panels path { transition: transform 0.6s, opacity 0.15s; } }
    `),
    el('div', { class: 'controls' }, radios('Perplexity', data.variants, variant, (i) => {
      variant = i;
      turn();
    })),
    el('div', { class: 'controls' }, classes.node, ...groups),
    el('div', { class: 'panels' }, ...maps.map((map) => el('div', {}, map.pick.node, map.image))),
    says
  );
  turn();
}
