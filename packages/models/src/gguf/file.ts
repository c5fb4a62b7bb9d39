import { existsSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { blockFormats, readableTypes, typeName } from "./blocks.ts";
import { checkHeaderLengths } from "./header-lengths.ts";
import { GgufMetadata } from "./metadata.ts";

const fetchAgain = "The file is damaged or was not copied whole: fetch it again.";

/** One tensor of a GGUF file, of a type that is read. */
export interface GgufTensor {
  name: string;
  /** Number of its element type: a key of blockFormats. */
  type: number;
  /** Outermost first, as everywhere but in the file. */
  shape: readonly number[];
  file: string;
  /** Position of its first byte in the file. */
  offset: number;
  byteLength: number;
}

/** A GGUF model: one file, or all parts of a split one. */
export interface GgufFile {
  /** The file, or the first of its parts. */
  file: string;
  files: readonly string[];
  metadata: GgufMetadata;
  tensors: ReadonlyMap<string, GgufTensor>;
}

/**
 * Opens a GGUF file (version 2 or 3, little-endian) and checks that all its tensors lie inside it. Of a split model any part
 * may be named; the others lie beside it. No weights are read.
 * @param accept Looks at the metadata before the tensors are: a model that is refused as a whole is not refused by a tensor.
 * @throws TemporaError naming the file and, where it is known, the tensor or key.
 */
export async function readGguf(named: string, accept: (metadata: GgufMetadata) => void = () => {}): Promise<GgufFile> {
  const file = firstPart(named);
  const first = await readPart(file, accept);
  const files = partFiles(file, first.metadata);
  const tensors = new Map(first.tensors);
  for (const part of files.slice(1)) {
    for (const [name, tensor] of (await readPart(part)).tensors) {
      if (tensors.has(name)) throw damaged(part, `This tensor lies in another part too`, name);
      tensors.set(name, tensor);
    }
  }
  const announced = first.metadata.optionalNumber("split.tensors.count");
  if (announced !== null && announced !== tensors.size) {
    throw damaged(file, `The parts hold ${tensors.size} tensors, split.tensors.count says ${announced}`);
  }
  return { file, files, metadata: first.metadata, tensors };
}

const partName = /-(\d{5})-of-(\d{5})\.gguf$/;

/** The first part of a split model, whichever was named; any other file as it is. */
export function firstPart(file: string): string {
  return file.replace(partName, (_, __, count: string) => `-00001-of-${count}.gguf`);
}

function partFiles(file: string, metadata: GgufMetadata): string[] {
  const count = metadata.number("split.count", 0);
  if (count <= 1) return [file];
  if (Number(partName.exec(file)?.[2]) !== count) {
    throw new TemporaError(`This is a part of a model that was split into ${count} files`, {
      where: { file },
      remedy: `Keep the parts' own names (…-00001-of-${five(count)}.gguf), side by side.`,
    });
  }
  return Array.from({ length: count }, (_, i) => file.replace(partName, `-${five(i + 1)}-of-${five(count)}.gguf`));
}

function five(number: number): string {
  return String(number).padStart(5, "0");
}

interface Part {
  metadata: GgufMetadata;
  tensors: Map<string, GgufTensor>;
}

async function readPart(file: string, accept: (metadata: GgufMetadata) => void = () => {}): Promise<Part> {
  await checkStart(file);
  const { size } = await stat(file);
  const header = await parseHeader(file);
  const start = Number(header.tensorDataOffset);
  if (start > size && header.tensorInfos.length > 0) {
    throw damaged(file, `The file is truncated: it ends at byte ${size}, inside its header`);
  }
  const metadata = new GgufMetadata(header.metadata as unknown as Record<string, unknown>, file);
  accept(metadata);
  const tensors = new Map<string, GgufTensor>();
  for (const info of header.tensorInfos) {
    const tensor = tensorOf(info, file, start);
    if (tensors.has(tensor.name)) throw damaged(file, "The header lists this tensor twice", tensor.name);
    if (tensor.offset + tensor.byteLength > size) {
      const end = tensor.offset + tensor.byteLength;
      throw damaged(file, `The file is truncated: this tensor ends at byte ${end}, the file at ${size}`, tensor.name);
    }
    tensors.set(tensor.name, tensor);
  }
  return { metadata, tensors };
}

/** Magic number, version and byte order: worded here, because these are what a wrong file gets wrong. */
async function checkStart(file: string): Promise<void> {
  if (partName.test(file) && !existsSync(file)) {
    throw new TemporaError("A part of this split model is missing", {
      where: { file },
      remedy: "Fetch all of its parts into one folder.",
    });
  }
  const start = new DataView(new ArrayBuffer(8));
  try {
    const handle = await open(file, "r");
    try {
      await handle.read(new Uint8Array(start.buffer), 0, 8, 0);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fileError(error, "Cannot read the model", file);
  }
  if (start.getUint32(0, false) !== 0x47475546) throw damaged(file, 'Not a GGUF file: it does not begin with "GGUF"');
  const version = start.getUint32(4, true);
  if (version === 2 || version === 3) return;
  const reversed = start.getUint32(4, false);
  const what = reversed <= 3 ? "This GGUF file is big-endian" : `This GGUF file has version ${version}`;
  throw new TemporaError(`${what}; versions 2 and 3, little-endian, are read`, {
    where: { file },
    remedy: "Convert the model again with a current convert_hf_to_gguf.py.",
  });
}

async function parseHeader(file: string) {
  // Not at the top: it brings a large package of task descriptions, which only GGUF files should pay for.
  const { gguf } = await import("@huggingface/gguf");
  try {
    await checkLengths(file);
    return await gguf(file, { allowLocalFile: true });
  } catch (error) {
    if (systemErrorCode(error) !== undefined) throw fileError(error, "Cannot read the model", file);
    const reason = error instanceof Error ? error.message : String(error);
    throw new TemporaError(`The GGUF header cannot be read: ${reason}`, {
      where: { file },
      remedy: fetchAgain,
      cause: error,
    });
  }
}

async function checkLengths(file: string): Promise<void> {
  const handle = await open(file, "r");
  try {
    await checkHeaderLengths(handle);
  } finally {
    await handle.close();
  }
}

function tensorOf(
  info: { name: string; shape: bigint[]; dtype: number; offset: bigint },
  file: string,
  start: number,
): GgufTensor {
  const format = blockFormats[info.dtype];
  if (format === undefined) throw unreadableType(info.name, info.dtype, file);
  const shape = info.shape.map(Number).reverse();
  const elements = shape.reduce((product, extent) => product * extent, 1);
  if ((shape.at(-1) ?? 0) % format.elements !== 0) {
    throw damaged(file, `Rows of ${shape.at(-1)} elements are no whole blocks of ${format.name}`, info.name);
  }
  const byteLength = (elements / format.elements) * format.bytes;
  return { name: info.name, type: info.dtype, shape, file, offset: start + Number(info.offset), byteLength };
}

function unreadableType(name: string, type: number, file: string): TemporaError {
  return new TemporaError(`This tensor is of type ${typeName(type)}; what is read: ${readableTypes}`, {
    where: { file, field: name },
    remedy:
      "Fetch the model as Q4_K_M, Q8_0, F16 or a Hugging Face folder, or convert it: llama-quantize --allow-requantize FILE OUT Q8_0.",
  });
}

function damaged(file: string, what: string, field?: string): TemporaError {
  return new TemporaError(what, { where: field === undefined ? { file } : { file, field }, remedy: fetchAgain });
}
