/* Pages that people write come before the library's modules, and a name of the library only after both. */
var Scorer = {
  score: ([page, , , , score]) => (page.startsWith("book/api") || page.startsWith("book/library") ? score - 100 : score),
  objNameMatch: 6,
  objPartialMatch: 1,
  objPrio: { 0: 2, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
