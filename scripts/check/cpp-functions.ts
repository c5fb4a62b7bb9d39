// Finds the function bodies of a C++ file by its braces. It knows our style, not the language.

export interface CppFunction {
  /** What stands before the body, on one line. */
  head: string;
  /** 1-based line of the opening brace. */
  line: number;
  /** Lines between the braces. */
  bodyLines: number;
}

const blankable = new RegExp(
  [
    String.raw`//[^\n]*`,
    String.raw`/\*[\s\S]*?\*/`,
    String.raw`R"([^(\s]*)\([\s\S]*?\)\1"`,
    String.raw`"(?:\\.|[^"\\\n])*"`,
    // Not the separator in 1'000.
    String.raw`(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'`,
    String.raw`^[ \t]*#(?:\\\n|[^\n])*`,
  ].join("|"),
  "gm",
);

/** The text without comments, literals and preprocessor lines; lines keep their numbers. */
function blankOut(text: string): string {
  return text.replace(blankable, (part) => part.replace(/[^\n]/g, " "));
}

type Brace = "scope" | "function" | "initializer" | "other";

function classify(head: string, charBefore: string): Brace {
  const plain = head.replace(/\[\[.*?\]\]|alignas\([^)]*\)/gs, "").trim();
  if (/^(inline\s+)?(template\s*<.*>\s*)?(namespace|class|struct|union|enum|extern)\b[^()]*$/s.test(plain))
    return "scope";
  if (!plain.includes(")")) return "other";
  // A member's initializer in a constructor, `: size_{n} {`, has no space before its brace.
  if (/[\w>]/.test(charBefore)) return "initializer";
  return /=\s*$/.test(plain) ? "other" : "function";
}

interface OpenBrace {
  kind: Brace;
  line: number;
  head: string;
}

export function cppFunctions(text: string): CppFunction[] {
  const code = blankOut(text);
  const found: CppFunction[] = [];
  const open: OpenBrace[] = [];
  let head = "";
  let line = 1;
  for (let i = 0; i < code.length; i += 1) {
    const char = code[i] as string;
    if (char === "\n") line += 1;
    const inScope = open.every((brace) => brace.kind === "scope");
    if (char === "{") {
      const kind = inScope ? classify(head, code[i - 1] ?? "") : "other";
      open.push({ kind, line, head });
      if (kind === "scope" || kind === "function") head = "";
    } else if (char === "}") {
      const brace = open.pop();
      if (brace?.kind === "function") {
        const name = brace.head.trim().replace(/\s+/g, " ");
        found.push({ head: name, line: brace.line, bodyLines: line - brace.line - 1 });
      }
      head =
        brace?.kind === "initializer" ? `${brace.head}()` : open.every((outer) => outer.kind === "scope") ? "" : head;
    } else if (inScope) {
      head = char === ";" ? "" : (head + char).replace(/^\s*(public|private|protected):/, "");
    }
  }
  return found;
}
