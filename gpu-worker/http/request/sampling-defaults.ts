/**
 * Reads how a checkpoint wants to be sampled: the values of generation_config.json for requests
 * that state none of their own, as in vLLM.
 */
import { z } from 'zod';
import { completionRequestSchema } from '../../protocol/requests.ts';
import { parseFile } from '../../tokenizer/tokenizer-files.ts';

/** Under the names that requests have for them. */
export interface SamplingDefaults {
  readonly temperature: number;
  readonly top_p: number;
  readonly top_k: number;
  readonly min_p: number;
  readonly repetition_penalty: number;
}

/** OpenAI's: the model's own distribution. */
export const plainSampling: SamplingDefaults = {
  temperature: 1,
  top_p: 1,
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
};

/** The parameters of requests may have defaults; other keys are for other programs. */
const generationSchema = z
  .looseObject({
    ...completionRequestSchema.pick({
      temperature: true,
      top_p: true,
      top_k: true,
      min_p: true,
      repetition_penalty: true,
    }).shape,
    do_sample: z.boolean().nullish(),
  })
  .nullish();

/**
 * @param generationConfig the parsed generation_config.json; null where there is none
 * @throws TokenizerError that names the file and the key
 */
export function readSamplingDefaults(generationConfig: unknown): SamplingDefaults {
  const given = parseFile('generation_config.json', generationSchema, generationConfig);
  const isGreedy = given?.do_sample === false;
  return {
    temperature: isGreedy ? 0 : (given?.temperature ?? plainSampling.temperature),
    top_p: given?.top_p ?? plainSampling.top_p,
    top_k: given?.top_k ?? plainSampling.top_k,
    min_p: given?.min_p ?? plainSampling.min_p,
    repetition_penalty: given?.repetition_penalty ?? plainSampling.repetition_penalty,
  };
}
