// What a checker of accessibility would find; each returns a list of complaints, empty where all is well.
window.checks = {
  contrast() {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = numbers(getComputedStyle(at).backgroundColor);
        if (colour.length < 4 || colour[3] === 1) return colour;
      }
      return [255, 255, 255];
    };
    const complaints = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.nodeValue.trim() || !element.checkVisibility() || element.closest("noscript,script")) continue;
      const style = getComputedStyle(element);
      const front = numbers(element.closest("svg") ? style.fill : style.color);
      const [high, low] = [luminance(front), luminance(behind(element))].sort((a, b) => b - a);
      const size = parseFloat(style.fontSize);
      const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const ratio = (high + 0.05) / (low + 0.05);
      if (ratio < (isLarge ? 3 : 4.5)) complaints.push(`${walker.currentNode.nodeValue.trim()}: ${ratio.toFixed(2)}`);
    }
    return complaints;
  },
  structure() {
    const complaints = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const expect = (isWell, complaint) => { if (!isWell) complaints.push(complaint); };
    expect(document.documentElement.lang === "en", "no language");
    expect(document.title.trim(), "no title");
    for (const landmark of ["header", "main", "footer", "h1"]) expect(all(landmark).length === 1, `not one ${landmark}`);
    let level = 1;
    for (const heading of all("h1, h2, h3, h4")) {
      expect(Number(heading.tagName[1]) <= level + 1, `${heading.innerText} skips a level`);
      level = Number(heading.tagName[1]);
      expect(heading.innerText.trim(), "an empty heading");
    }
    for (const table of all("table")) {
      expect(table.caption && table.caption.textContent.trim(), "a table without a caption");
      for (const head of table.querySelectorAll("th")) expect(head.scope, `${head.innerText}: a head of nothing`);
    }
    for (const input of all("input, select, textarea")) expect(input.labels.length, `${input.id}: no label`);
    for (const image of all("[role=img]")) {
      for (const name of ["aria-labelledby", "aria-describedby"]) {
        const text = document.getElementById(image.getAttribute(name));
        expect(text && text.textContent.trim(), `a chart without ${name}`);
      }
    }
    for (const drawing of all("svg")) {
      expect(drawing.closest("[role=img], [aria-hidden=true]") || drawing.ariaHidden === "true", "a drawing without words");
    }
    for (const link of all("a, button")) expect(link.innerText.trim(), "a link without words");
    for (const region of all("[role=region], progress")) expect(region.getAttribute("aria-label"), "a region without a name");
    const ids = all("[id]").map((element) => element.id);
    expect(new Set(ids).size === ids.length, "an id that is there twice");
    expect(all("[role=status]").length > 0, "nothing is announced");
    return complaints;
  },
};
