/* One image: what the observations say, their average by alpha, and the best answer of z under the loss. */
(box, data, { el, range, choice, says, list, fixed, add }) => {
  let at = 0;
  let [beta, alphas] = [data.beta, [...data.alphas]];
  const S = data.stages.length;

  /* The q that minimises w_y CE(q n, y) + beta sum_i alpha_i KL(p_i, q): q_i (w n_i / s + beta) = w [i = y] + beta p_i
     with s = sum_j n_j q_j; the s at which the q sum to 1, by halving. */
  const optimum = (p, y, b) => {
    const w = data.weights[y];
    const q = (s) => p.map((v, i) => ((i === y ? w : 0) + b * v) / ((w * data.counts[i]) / s + b));
    let [low, high] = [Math.min(...data.counts) / 2, Math.max(...data.counts) * 2];
    for (let i = 0; i < 80; i++) {
      const s = Math.sqrt(low * high);
      if (q(s).reduce((a, v) => a + v) < 1) low = s;
      else high = s;
    }
    return q(low);
  };
  /* The image itself, from its bytes. */
  const seen = el('canvas', { role: 'img', hidden: true });
  const show = ({ pixels, size, title }) => {
    seen.hidden = !pixels;
    if (!pixels) return;
    const [h, w] = size;
    const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
    const shown = new ImageData(w, h);
    for (let i = 0; i < w * h; i++) shown.data.set([bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2], 255], 4 * i);
    Object.assign(seen, { width: w, height: h });
    seen.getContext('2d').putImageData(shown, 0, 0);
    seen.setAttribute('aria-label', title);
  };
  const body = el('tbody');
  const heads = [...data.stages, 'mean', 'best z'];
  const table = el('table', { class: 'wide' }, el('caption', {}, ''),
    el('thead', {}, el('tr', {}, ...['class', ...heads].map((h) => el('th', { scope: 'col' }, h)))), body);
  const percent = (v) => (v > 0.995 && v < 1 ? '>99' : v > 0 && v < 0.005 ? '<1' : fixed(100 * v)) + ' %';

  const put = () => {
    const { title, y, p } = data.images[at];
    show(data.images[at]);
    const shares = [...alphas, 1 - alphas.reduce((a, b) => a + b, 0)];
    const full = p.map((row) => { const total = row.reduce((a, b) => a + b); return row.map((v) => v / total); });
    const average = full[0].map((_, i) => shares.reduce((sum, share, s) => sum + share * full[s][i], 0));
    const best = optimum(average, y, beta);
    const columns = [...full, average, best];
    const ranked = average.map((_, i) => [full.reduce((sum, row) => sum + row[i], 0), i]) // whatever the sliders say
      .filter(([, i]) => i !== y).sort((a, b) => b[0] - a[0]);
    const top = [y, ...ranked.slice(0, 4).map(([, i]) => i)];
    const rest = (column) => Math.max(0, 1 - top.reduce((sum, i) => sum + column[i], 0));
    const cell = (v, mark) => el('td', {}, percent(v),
      el('span', { class: 'bar', 'aria-hidden': 'true' }, el('span', { style: `width:${(100 * v).toFixed(1)}%;background:${mark}` })));
    const tint = (s) => (s < S ? '#56799b' : s === S ? '#2f7fc1' : '#a8457d');
    body.replaceChildren(
      ...top.map((i) => el('tr', {}, el('th', { scope: 'row' }, `${data.names[i]} (${data.counts[i]})${i === y ? ' ✓' : ''}`), ...columns.map((c, s) => cell(c[i], tint(s))))),
      el('tr', {}, el('th', { scope: 'row' }, `${average.length - 5} others`), ...columns.map((c, s) => cell(rest(c), tint(s))))
    );
    table.caption.textContent = `${title}: in truth ${data.names[y]}, one of ${data.counts[y]} training images of its class. Numbers of images in brackets.`;
    const said = (column) => { const i = column.indexOf(Math.max(...column)); return `${data.names[i]} ${percent(column[i])}`; };
    const truth = average[y] === Math.max(...average) ? '' : `, ${data.names[y]} ${percent(average[y])}`;
    says.textContent =
      `${list(data.stages.map((name, s) => `${name} says ${said(full[s])}`))}. Their mean with weights ${shares.map((v) => v.toFixed(2)).join(', ')}: ${said(average)}${truth}. ` +
      `At β = ${beta.toFixed(1)} the best z gives ${data.names[y]} ${percent(best[y])}` +
      (beta === 0 ? ', as the label alone asks.' : '.');
  };
  const tell = (name) => (v) => `${name} = ${(v / 100).toFixed(2)}`;
  const sliders = alphas.map((alpha, s) =>
    range(`share of ${data.stages[s]}`, {
      max: 100, step: 5, value: Math.round(100 * alpha), words: tell(`α${'₁₂₃₄'[s]}`),
      moved: (v) => {
        alphas[s] = v / 100;
        alphas.forEach((other, i) => { // the shares stay below 1 together
          const over = alphas.reduce((a, b) => a + b, 0) - 1;
          if (i !== s && over > 1e-9) { alphas[i] = Math.max(0, other - over); sliders[i].quiet(Math.round(100 * alphas[i])); }
        });
        put();
      },
    })
  );
  const weight = range('distillation', { max: 100, value: Math.round(10 * beta), words: (v) => `β = ${(v / 10).toFixed(1)}`, moved: (v) => { beta = v / 10; put(); } });
  const images = choice('image', data.images.map(({ title }, i) => [i, title]), 0, (i) => { at = +i; put(); });
  add(el('div', { class: 'controls' }, ...(data.images.length > 1 ? [images.node] : []), ...[...sliders, weight].map((s) => s.node)), seen, says, table);
  put();
};
