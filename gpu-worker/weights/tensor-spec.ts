/**
 * A tensor that a model expects of its checkpoint. `matrix` may be F32, BF16, or F8_E4M3 with a
 * `<name>_scale_inv` beside it; `kv-up` is such a matrix that expands latents to keys and values,
 * and that attention may want in other forms; `f32-matrix` is never fp8 (embedding, head, gate,
 * index weights); `vector` is F32 or BF16 and reaches the model as float32.
 */
export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: 'matrix' | 'kv-up' | 'f32-matrix' | 'vector';
  /** `skipped` tensors may stand in the checkpoint, are checked if they do, and are not loaded. */
  readonly use: 'needed' | 'skipped';
  /** For each dimension the keys of config.json that give it, for messages. */
  readonly keys?: readonly string[];
}
