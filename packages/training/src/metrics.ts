/** One optimizer step under TRL's names. Rewards, log-probs and lengths are means over the step's pairs. */
export interface Metrics {
  /** 1-based optimizer step. */
  step: number;
  epoch: number;
  loss: number;
  /** L2 norm of the gradient before clipping. */
  grad_norm: number;
  /** The learning rate that this step used. */
  learning_rate: number;
  /** Tokens of all sequences seen so far, prompt + completion, as TRL counts them. */
  num_tokens: number;
  "rewards/chosen"?: number;
  "rewards/rejected"?: number;
  /** Share of pairs whose chosen reward is strictly larger. */
  "rewards/accuracies"?: number;
  "rewards/margins"?: number;
  "logps/chosen"?: number;
  "logps/rejected"?: number;
  /** Mean σ(−reward margin): the weight that sigmoid DPO gives a pair's gradient. */
  "tempora/dpo_weight"?: number;
  "tempora/chosen_length"?: number;
  "tempora/rejected_length"?: number;
  /** Token-mean loss of the supervised rows replayed within the step, before its weight. */
  "tempora/replay_loss"?: number;
}
