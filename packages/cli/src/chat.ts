import type { Engine, GenerationBatch } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type Message, type RenderOptions, TextStream, type Tokenizer } from "@tempora/text";
import { keyOf } from "@tempora/training";
import type { SamplingFlags } from "./options.ts";

export interface ChatOptions {
  sampling: SamplingFlags;
  endTokens: readonly number[];
  maxCacheTokens: number;
  /** System message, variables of the template, date. */
  render: RenderOptions;
}

/** A conversation with a model. Earlier turns stay in the batch's cache: a turn computes what is new. */
export class Chat implements Disposable {
  readonly #tokenizer: Tokenizer;
  readonly #options: ChatOptions;
  readonly #batch: GenerationBatch;
  readonly #maxPositions: number;
  #messages: Message[] = [];
  /** Answers so far, so that none is sampled as an earlier one was. */
  #answers = 0;

  constructor(engine: Pick<Engine, "batch" | "config">, tokenizer: Tokenizer, options: ChatOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
    this.#maxPositions = engine.config.maxPositions;
    this.#batch = engine.batch({ maxRows: 1, maxCacheTokens: options.maxCacheTokens });
    this.reset(options.render.system ?? "");
  }

  /** The turns so far. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  /** Forgets all turns; a system message stays unless another ("" for none) is given. */
  reset(system?: string): void {
    const kept = this.#messages.filter(({ role }) => role === "system");
    this.#messages = system === undefined ? kept : system === "" ? [] : [{ role: "system", content: system }];
  }

  /**
   * Answers a user's turn, piece by piece. Aborted, it ends there, and what was said stays said.
   * @throws TemporaError when the conversation is longer than context or cache; it is then as before.
   */
  async *answer(text: string, signal: AbortSignal): AsyncGenerator<string> {
    const { sampling, endTokens, render } = this.#options;
    const asked = [...this.#messages, { role: "user", content: text }];
    const options = { addGenerationPrompt: true, variables: render.variables ?? {}, now: render.now };
    const ids = this.#tokenizer.encode(this.#tokenizer.applyChatTemplate(asked, options));
    if (ids.length >= this.#maxPositions) throw tooLong(ids.length, this.#maxPositions);
    const { temperature, topP, topK, maxNewTokens, seed } = sampling;
    const key = keyOf(`row ${this.#answers++}`);
    const request = this.#batch.add({ ids, key, temperature, topP, topK, maxNewTokens, seed, endTokens });
    const stream = new TextStream(this.#tokenizer);
    const said: string[] = [];
    const say = (piece: string) => {
      if (piece !== "") said.push(piece);
      return piece;
    };
    try {
      while (this.#batch.rows > 0 && !signal.aborted) {
        for (const { id, finishReason } of await this.#batch.step()) {
          if (finishReason !== "stop") yield say(stream.push(id));
        }
      }
      yield say(stream.end());
    } finally {
      this.#batch.end(request);
      this.#messages = [...asked, { role: "assistant", content: said.join("") }];
    }
  }

  [Symbol.dispose](): void {
    this.#batch.dispose();
  }
}

function tooLong(tokens: number, context: number): TemporaError {
  return new TemporaError(`The conversation has ${tokens} tokens, which leaves no room in a context of ${context}`, {
    remedy: "Say it in fewer words, or let go of the turns before by /reset.",
  });
}
