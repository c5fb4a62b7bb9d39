export { type WorldModelConfig, worldDefaults } from "./defaults.ts";
export { chatTemplate } from "./tokenizer-files.ts";
export { type Kind, kinds, type Point, points } from "./vocabulary.ts";
export {
  createWorld,
  type Split,
  type World,
  type WorldMessage,
  type WorldOptions,
  type WorldPrompt,
  type WorldRow,
} from "./world.ts";
