// Written by tools/client_types.py from the API's document; not to be edited.

export interface EventIn {
  item_id: string | number;
  user_id?: string | number;
  session_id?: string | number;
  event_type?: string;
  timestamp?: string | number;
  event_id?: string | number;
  value?: number;
  recommendation_id?: string | number;
  properties?: Record<string, unknown>;
}

export interface EventDetails {
  user_id?: string | number;
  session_id?: string | number;
  timestamp?: string | number;
  event_id?: string | number;
  value?: number;
  recommendation_id?: string | number;
  properties?: Record<string, unknown>;
}

export interface RecommendationBody {
  k?: number;
  exclude_seen?: string;
  exclude_items?: string[];
  categories?: string[];
  filter?: string[];
  boost?: string[];
  max_per_category?: number;
  for_items?: string[];
  scenario?: string;
  page_of?: string;
  explain?: boolean;
  events?: Record<string, unknown>[];
  user_id?: string;
  session_id?: string;
  candidates?: string[];
}

export interface ImpressionIn {
  items: string[];
  recommendation_id?: string;
  user_id?: string;
  session_id?: string;
  scenario?: string;
}

export interface ItemIn {
  item_id: string;
  title?: string | null;
  categories?: string[] | null;
  price?: number | null;
  image?: string | null;
  available?: boolean | null;
  properties?: Record<string, unknown> | null;
}

export interface MergeBody {
  from?: string;
  session_id?: string;
}

export interface EventResult {
  index: number;
  status: string;
  event_id: string | null;
  error: string | null;
}

export interface EventsAnswer {
  accepted: number;
  duplicates: number;
  rejected: number;
  results: EventResult[];
}

export interface ItemOut {
  item_id: string;
  title: string | null;
  categories: string[];
  price: number | null;
  image: string | null;
  available: boolean;
  properties: Record<string, unknown>;
}

export interface ReasonOut {
  item_id: string;
  event_id: string;
  timestamp: string;
  share: number;
}

export interface RankedItemOut {
  item_id: string;
  rank: number;
  score: number;
  source: string;
  item: ItemOut | null;
  reason: ReasonOut[] | null;
}

export interface AnswerRowOut {
  title: string;
  logic: string;
  about_item: string | null;
  category: string | null;
  item_ids: string[];
}

export interface SeenOut {
  exclude_seen: string;
  why: string | null;
}

export interface RecommendationAnswer {
  recommendation_id: string;
  user_id: string | null;
  session_id: string | null;
  model_version: string | null;
  generated_at: string;
  sequence_length: number;
  last_event_id: string | null;
  degraded: string | null;
  arm: string | null;
  experiments: Record<string, string>;
  items: RankedItemOut[];
  scenario?: string | null;
  scenario_version?: number | null;
  rows?: AnswerRowOut[] | null;
  seen?: SeenOut | null;
}

export interface BatchAnswer {
  answers: RecommendationAnswer[];
}

export interface ItemListAnswer {
  items: RankedItemOut[];
}

export interface ImpressionAnswer {
  recommendation_id: string;
}

export interface ItemResult {
  index: number;
  status: string;
  item_id: string | null;
  error: string | null;
}

export interface ItemsAnswer {
  stored: number;
  rejected: number;
  results: ItemResult[];
}

export interface MergeAnswer {
  user_id: string;
  merged: string;
}

export interface AttributesAnswer {
  user_id: string;
  attributes: Record<string, unknown>;
  created_at: string;
  updated_at: string;
}

export interface FieldError {
  field: string;
  message: string;
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  errors: FieldError[];
  request_id: string;
}
