/**
 * Parameters of Anthropic's documentation that are refused by name, each with its reason. Nothing
 * that a client asks for is ignored silently: what is neither in a schema nor here is refused as
 * unknown.
 */
import type { Reasons } from '../../middleware/parse-request.ts';

export const unsupported: Reasons = {
  compaction: 'the client shortens its own conversation',
  inference_geo: 'the operator decides where the workers are',
  thread: 'conversations are not stored; send all messages',
  workspace_id: 'a key belongs to one account',
  'metadata.user_id': 'expected at most 512 characters',
  'messages[].content[].source': 'the model reads and writes text only',
};
