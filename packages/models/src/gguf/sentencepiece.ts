/**
 * The merges of a SentencePiece BPE vocabulary from its scores, in order: every way to split a piece into two pieces, the
 * best-scored piece first, the splits of one piece by the ids of their parts, as in the tokenizer.json of Llama 2 and Mistral
 * (transformers: convert_slow_tokenizer.generate_merges).
 * @param pieces By token id. @param scores By token id; greater is merged earlier.
 */
export function mergesOfScores(pieces: readonly string[], scores: readonly number[]): [string, string][] {
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  const merges: { pair: [string, string]; leftId: number; rightId: number; id: number; score: number }[] = [];
  for (const [piece, id] of ids) {
    const points = [...piece];
    for (let at = 1; at < points.length; at++) {
      const [left, right] = [points.slice(0, at).join(""), points.slice(at).join("")];
      const [leftId, rightId] = [ids.get(left), ids.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      merges.push({ pair: [left, right], leftId, rightId, id, score: scores[id] ?? 0 });
    }
  }
  merges.sort((a, b) => b.score - a.score || a.id - b.id || a.leftId - b.leftId || a.rightId - b.rightId);
  return merges.map(({ pair }) => pair);
}
