export { saveNf4 } from "./bitsandbytes/save.ts";
export { type Checkpoint, checkpointHash, type HashOptions, openCheckpoint } from "./checkpoint.ts";
export { newModelConfigJson, parseModelConfig, readModelConfig, type SpecialTokens } from "./config.ts";
export { type FolderLock, folderLockOwner, tryLockFolder } from "./folder-lock.ts";
export { type ModelFolder, requireReplaceable } from "./folder-swap.ts";
export { type GgufType, type SaveGgufOptions, saveGguf } from "./gguf/save.ts";
export { type LocateOptions, locateModel } from "./hub.ts";
export { newAdapterConfigJson } from "./peft/config.ts";
export {
  type AdapterFolder,
  adapterFiles,
  adapterHash,
  isAdapterFolder,
  openAdapter,
  type SaveAdapterOptions,
  saveAdapter,
} from "./peft/folder.ts";
export { saveGgufAdapter } from "./peft/gguf.ts";
export { readSafetensors, type SafetensorsFile, type SafetensorsTensor } from "./safetensors.ts";
export { type NamedTensor, SafetensorsWriter, type TensorLayout, writeSafetensors } from "./safetensors-writer.ts";
export { type SaveOptions, saveCheckpoint } from "./save.ts";
export { type CopyOptions, saveCopy } from "./save-copy.ts";
