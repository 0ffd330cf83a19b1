/* All that the panel can do, by subject. */
export * from './corrections.js';
export * from './drafts.js';
export * from './follow.js';
export * from './next.js';
export * from './painting.js';
export * from './prompts.js';
export * from './segmenting.js';
export * from './state.js';
export * from './stored.js';
export * from './supports.js';
export * from './surface.js';
export * from './training.js';
export * from './uncertainty.js';
