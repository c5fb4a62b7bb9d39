/**
 * Gives the memory of numbers back that nobody reads any more; the array is empty afterwards. A collector that knows nothing of the
 * machine's memory would leave gigabytes of them lying. Where the runtime cannot (Node 20), they are left to it.
 */
export function giveBack({ buffer }: Uint8Array | Float32Array): void {
  if (buffer instanceof ArrayBuffer && "transfer" in buffer) buffer.transfer(0);
}

/** Tensors one at a time: each is given back when the next one is asked for. */
export async function* oneAtATime<Tensor extends { bytes: Uint8Array }>(
  tensors: AsyncIterable<Tensor>,
): AsyncGenerator<Tensor, void, undefined> {
  for await (const tensor of tensors) {
    yield tensor;
    giveBack(tensor.bytes);
  }
}
