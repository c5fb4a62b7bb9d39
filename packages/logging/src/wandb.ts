import { randomBytes } from "node:crypto";
import { appendFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type Logger, prefixedValues, type Series, settingLeaves } from "./logger.ts";

/** A record of wandb's log lies in blocks of this size, cut where a block ends (LevelDB's log format). */
const blockSize = 32_768;
const headerSize = 7;
/** ":W&B", the magic number 0xBEE1 and version 0. */
const fileHeader = Buffer.from([0x3a, 0x57, 0x26, 0x42, 0xe1, 0xbe, 0x00]);

/**
 * wandb's offline format, for `wandb sync FOLDER`: offline-run-<time>_<id>/run-<id>.wandb, LevelDB's log with plain CRC-32 of
 * Records of wandb_internal.proto (header = 21, run = 17, history = 2, summary = 3, exit = 18). The run of an earlier attempt
 * goes. WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME and WANDB_RUN_GROUP mean what they mean there.
 */
export async function wandbLogger({ folder, name, settings }: Series): Promise<Logger> {
  const id = randomBytes(4).toString("hex");
  const begun = new Date();
  const stamp = begun.toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "_");
  await mkdir(folder, { recursive: true });
  for (const entry of await readdir(folder)) {
    if (entry.startsWith("offline-run-")) await rm(join(folder, entry), { recursive: true });
  }
  const own = join(folder, `offline-run-${stamp}-${id}`);
  await mkdir(join(own, "files"), { recursive: true });
  const log = new WandbFile(join(own, `run-${id}.wandb`), id);
  await log.begin();
  await log.record(17, (record) => runRecord(record, { id, name, settings, begun }));
  return {
    async log(rows) {
      for (const row of rows) {
        const seconds = row.time / 1000;
        const items: [string, unknown][] = [
          ...prefixedValues(row),
          ["train/global_step", row.step],
          ["_step", row.step],
          ["_timestamp", seconds],
          ["_runtime", seconds - begun.getTime() / 1000],
        ];
        await log.record(2, (record) => {
          for (const item of items) itemOf(record, 1, 2, item);
          record.tag(2, WireType.LengthDelimited).fork().tag(1, WireType.Varint).int64(row.step).join();
        });
        await log.record(3, (record) => {
          for (const item of items) itemOf(record, 1, 2, item);
        });
      }
    },
    close: (outcome) =>
      log.record(18, (record) => {
        record.tag(1, WireType.Varint).int32(outcome === "finished" ? 0 : 1);
      }),
  };
}

interface RunFacts {
  id: string;
  name: string;
  settings: Readonly<Record<string, unknown>>;
  begun: Date;
}

/** RunRecord {run_id = 1, entity, project, config = 4 {update = 1}, run_group = 6, display_name = 8, host = 13, start_time = 17} */
function runRecord(record: BinaryWriter, { id, name, settings, begun }: RunFacts): void {
  const { WANDB_ENTITY = "", WANDB_PROJECT = "tempora", WANDB_RUN_GROUP = "", WANDB_NAME = name } = process.env;
  const text = (field: number, value: string) => {
    if (value !== "") record.tag(field, WireType.LengthDelimited).string(value);
  };
  text(1, id);
  text(2, WANDB_ENTITY);
  text(3, WANDB_PROJECT);
  record.tag(4, WireType.LengthDelimited).fork();
  for (const leaf of settingLeaves(settings)) itemOf(record, 1, 1, leaf);
  record.join();
  text(6, WANDB_RUN_GROUP);
  text(8, WANDB_NAME);
  text(13, hostname());
  record.tag(17, WireType.LengthDelimited).fork();
  record.tag(1, WireType.Varint).int64(Math.floor(begun.getTime() / 1000));
  record
    .tag(2, WireType.Varint)
    .int32((begun.getTime() % 1000) * 1e6)
    .join();
}

/** An item {key = 1, nested_key = 2, value_json = 16} in a repeated field; history and summaries name by nested_key. */
function itemOf(record: BinaryWriter, field: number, key: 1 | 2, [name, value]: readonly [string, unknown]): void {
  record.tag(field, WireType.LengthDelimited).fork();
  record.tag(key, WireType.LengthDelimited).string(name);
  record
    .tag(16, WireType.LengthDelimited)
    .string(JSON.stringify(value ?? null))
    .join();
}

class WandbFile {
  #size = 0;
  #records = 0;

  constructor(
    private readonly file: string,
    private readonly id: string,
  ) {}

  /** HeaderRecord {version_info = 1 {producer = 1, min_consumer = 2}} */
  async begin(): Promise<void> {
    await writeFile(this.file, fileHeader);
    this.#size = fileHeader.length;
    await this.record(21, (record) => {
      record.tag(1, WireType.LengthDelimited).fork();
      record.tag(1, WireType.LengthDelimited).string("tempora");
      record.tag(2, WireType.LengthDelimited).string("0.70.0").join();
    });
  }

  /** Record {num = 1, <field>, _info = 200 {stream_id = 1}} */
  async record(field: number, fill: (record: BinaryWriter) => void): Promise<void> {
    const writer = new BinaryWriter().tag(1, WireType.Varint).int64(this.#records + 1);
    writer.tag(field, WireType.LengthDelimited).fork();
    fill(writer);
    writer.join();
    writer.tag(200, WireType.LengthDelimited).fork().tag(1, WireType.LengthDelimited).string(this.id).join();
    const bytes = inBlocks(writer.finish(), this.#size);
    await appendFile(this.file, bytes);
    this.#size += bytes.length;
    this.#records++;
  }
}

/** Cut into fragments that lie within blocks: whole = 1, or first = 2, middle = 3, last = 4. `at` is the file's length. */
function inBlocks(data: Uint8Array, at: number): Buffer {
  const parts: Buffer[] = [];
  let [from, place] = [0, at];
  do {
    const room = blockSize - (place % blockSize);
    if (room < headerSize) {
      parts.push(Buffer.alloc(room));
      place += room;
      continue;
    }
    const piece = data.subarray(from, from + room - headerSize);
    const [first, last] = [from === 0, from + piece.length === data.length];
    const type = first ? (last ? 1 : 2) : last ? 4 : 3;
    const header = Buffer.alloc(headerSize);
    header.writeUInt32LE(crc32(piece, crc32(Buffer.from([type]))), 0);
    header.writeUInt16LE(piece.length, 4);
    header.writeUInt8(type, 6);
    parts.push(header, Buffer.from(piece));
    place += headerSize + piece.length;
    from += piece.length;
  } while (from < data.length);
  return Buffer.concat(parts);
}
