/** bfloat16 numbers as the floats that they are: a bfloat16 is the upper half of a float32. */
export function bf16ToF32(halves: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer);
}
