/** The parts that families of this architecture share: all but config.json and chat format. */
import type { ModelFamily } from '../family.ts';
import { prepareModel } from './forward.ts';
import { checkTensorNames } from './tensor-names.ts';
import { tensorSpecs } from './tensors.ts';
import { WeightBuilder } from './weights.ts';

export const mlaMoeModel: Omit<ModelFamily, 'chatFormat' | 'parseConfig'> = {
  checkTensorNames,
  tensorSpecs,
  buildModel(config, backend, drafts) {
    const builder = new WeightBuilder(config, backend, drafts);
    return {
      specs: builder.specs,
      accept: (tensor) => builder.accept(tensor),
      finish: (options) => prepareModel(config, builder.finish(), backend, options),
    };
  },
};
