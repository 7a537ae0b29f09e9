// Runs the codecs over arrays, so that tests can hold them against ../codecs.ts bit for bit.

import { loadOneE4m3, encodeE4m3, exp, groupScale, roundBf16, roundE4m3 } from './numbers';

@unmanaged
class CodecArguments {
  count: u32;
  /** [count] f32 */
  x: usize;
  /**
   * [7][count]: bf16 rounding, e4m3 rounding, e4m3 code (i32), scale, scale 2^n, e^x, code decoded.
   */
  out: usize;
}

export function codecs(at: usize): void {
  const job = changetype<CodecArguments>(at);
  const stride = job.count << 2;
  for (let i: usize = 0; i < stride; i += 4) {
    const x = v128.load_splat<f32>(job.x + i);
    let out = job.out + i;
    v128.store_lane<f32>(out, roundBf16(x), 0);
    out += stride;
    v128.store_lane<f32>(out, roundE4m3(x), 0);
    out += stride;
    v128.store_lane<f32>(out, encodeE4m3(x), 0);
    out += stride;
    store<f32>(out, groupScale(load<f32>(job.x + i), false));
    out += stride;
    store<f32>(out, groupScale(load<f32>(job.x + i), true));
    out += stride;
    v128.store_lane<f32>(out, exp(x), 0);
    out += stride;
    const code = i32x4.extract_lane(encodeE4m3(x), 0);
    store<u8>(out, <u8>code);
    v128.store_lane<f32>(out, loadOneE4m3(out), 0);
  }
}
