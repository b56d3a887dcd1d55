/* Self-check questions, graded in the page.

   <div class="question">            A question is Markdown inside a div, each choice a <details> whose explanation
                                     begins with "Right" or with "No". Without this script it is still read and opened.
   **What is asked?**

   <details><summary>a choice</summary>

   No. Why not.

   </details>
   </div>
*/
document.addEventListener("DOMContentLoaded", () => {
  const questions = [...document.querySelectorAll(".question")];
  if (!questions.length) return;
  const line = (className) => {
    const p = document.createElement("p");
    p.className = className;
    p.setAttribute("role", "status");
    return p;
  };
  const score = line("question-score");
  let done = 0;
  let first = 0;
  const count = () => {
    score.textContent = `Answered right: ${done} of ${questions.length}, at the first try: ${first}.`;
  };

  for (const [number, question] of questions.entries()) {
    const asked = question.querySelector("p");
    asked.id ||= `question-${number + 1}`;
    question.setAttribute("role", "group");
    question.setAttribute("aria-labelledby", asked.id);
    const verdict = line("question-verdict");
    question.append(verdict);
    let tries = 0;
    let solved = false;
    for (const choice of question.querySelectorAll("details")) {
      const summary = choice.querySelector("summary");
      const explanation = [...choice.childNodes].filter((node) => node !== summary);
      const right = /^\s*right\b/i.test(explanation.map((node) => node.textContent).join(""));
      let seen = false;
      summary.addEventListener("click", () => {
        if (seen) return;
        seen = true;
        tries += !solved;
        choice.classList.add(right ? "is-right" : "is-wrong");
        const mark = document.createElement("span");
        mark.className = "question-mark";
        mark.textContent = right ? " ✓ right" : " ✗ not this one";
        summary.append(mark);
        if (solved) return;
        solved = right;
        verdict.textContent = !right ? "Not this one: read why, then try another." : `Right, at try ${tries}.`;
        if (!right) return;
        done += 1;
        first += tries === 1;
        count();
      });
    }
  }
  count();
  questions.at(-1).after(score);
});
