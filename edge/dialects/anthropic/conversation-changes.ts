/** System messages in the middle of a conversation may change its tools and its effort. */
import type { Tool } from '../../../gpu-worker/protocol/messages.ts';
import type { AnthropicMessage } from './message-schemas.ts';
import type { MessagesRequest } from './request-schemas.ts';
import type { AnthropicTool } from './tool-schemas.ts';

/** The tools at the conversation's end; null if there are none. */
export function toTools({ tools, messages }: MessagesRequest): Tool[] | null {
  const known = new Map((tools ?? []).map((tool) => [tool.name, tool]));
  const offered = new Set(known.keys());
  for (const { type, tool } of messages.flatMap(toolChanges)) {
    if (type === 'tool_removal') offered.delete(tool.name);
    else if (tool.type === 'tool_reference') offered.add(tool.name);
    else {
      known.set(tool.definition.name, tool.definition);
      offered.add(tool.definition.name);
    }
  }
  if (offered.size === 0) return null;
  return [...known.values()].filter(({ name }) => offered.has(name)).map(toTool);
}

function toolChanges(message: AnthropicMessage) {
  if (message.role !== 'system' || typeof message.content === 'string') return [];
  return (message.content ?? []).filter((block) => block.type !== 'text');
}

function toTool(tool: AnthropicTool): Tool {
  return {
    type: 'function',
    function: {
      name: tool.name,
      ...(tool.description != null && { description: tool.description }),
      parameters: tool.input_schema,
      ...(tool.strict != null && { strict: tool.strict }),
    },
  };
}

/** The last effort that the conversation states counts. */
export function toEffort({ messages, output_config: config }: MessagesRequest) {
  const efforts = messages.map((each) =>
    each.role === 'system' ? each.output_config?.effort : undefined,
  );
  return efforts.findLast((effort) => effort != null) ?? config?.effort ?? null;
}
