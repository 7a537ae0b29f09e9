/**
 * The names and words that facts are made of, out of `@faker-js/faker` 10.6.0 as npm packs it:
 * `node names.mjs` reads the unpacked package in n/ and writes data/names.json.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const faker = join('n', 'faker-js-faker-10.6.0', 'package', 'dist', 'index.js');
const { allLocales } = await import(pathToFileURL(faker).href);

const languages = /^(en|de|fr|es|it|sv|pl|pt|nl|da|fi|nb|cs|hu|tr|ro|hr|sk|sl|id|vi|lv)/;
/** English of countries whose names read otherwise. */
const otherEnglish = /^en_(NG|GH|IN|ZA|HK)/;
const personName = /^[A-ZÀ-ÖØ-Þ][A-Za-zÀ-ÖØ-öø-ÿ'ąćęłńóśźżčďěňřšťůžđğışőű-]{2,13}$/;
const cityName = /^[A-ZÀ-Þ][\p{L}' -]{2,20}$/u;
const countryName = /^[A-Z][\p{L}' -]{2,20}$/u;
const englishCity = /^[A-Z][A-Za-z' -]{2,20}$/;
const lengthMax = 23;

const knownCities =
  'Paris London Rome Berlin Madrid Helsinki Lisbon Vienna Oslo Dublin Athens Prague Warsaw Tokyo ' +
  'Moscow Cairo Sydney Toronto Geneva Zurich Munich Hamburg Milan Venice Naples Barcelona ' +
  'Brussels Amsterdam Stockholm Copenhagen Budapest Istanbul Delhi Mumbai Beijing Shanghai Seoul ' +
  'Singapore Lima Bogota Havana Nairobi Lagos Boston Chicago Denver Seattle Dallas Houston ' +
  'Edinburgh Glasgow Manchester Liverpool Bristol Leeds York Oxford Cambridge Porto Seville ' +
  'Florence Turin Lyon Nice Marseille Basel Bern Riga Vilnius Tallinn Sofia Bucharest Belgrade ' +
  'Zagreb Reykjavik Montreal Vancouver Ottawa Melbourne Perth Auckland Wellington';

function flat(value) {
  if (!value) return [];
  if (Array.isArray(value)) return value;
  return typeof value === 'object' ? Object.values(value).flatMap(flat) : [];
}

/** The words of the locales that fit, each once, in order. */
function words(locales, wordsOf, fits = () => true) {
  const all = locales.flatMap((locale) => flat(wordsOf(locale))).filter((word) => fits(word));
  return [...new Set(all)].filter((word) => typeof word === 'string' && word.length <= lengthMax);
}

const matches = (pattern) => (word) => pattern.test(word);
const lower = (wordsOf) => (locale) => flat(wordsOf(locale)).map((word) => word.toLowerCase());

const named = Object.entries(allLocales);
const read = named.filter(([name]) => languages.test(name)).map(([, locale]) => locale);
const english = named.filter(([name]) => name.startsWith('en')).map(([, locale]) => locale);
const plainEnglish = named
  .filter(([name]) => name.startsWith('en') && !otherEnglish.test(name))
  .map(([, locale]) => locale);

const englishCities = words(english, ({ location }) => location?.city_name, matches(englishCity));
const lists = {
  first_en: words(plainEnglish, ({ person }) => person?.first_name, matches(personName)),
  last_en: words(plainEnglish, ({ person }) => person?.last_name, matches(personName)),
  city_en: [...new Set([...englishCities, ...knownCities.split(' ')])],
  first: words(read, ({ person }) => person?.first_name, matches(personName)),
  last: words(read, ({ person }) => person?.last_name, matches(personName)),
  city: words(read, ({ location }) => location?.city_name, matches(cityName)),
  country: words(english, ({ location }) => location?.country, matches(countryName)),
  noun: words(english, ({ word }) => word?.noun),
  adj: words(english, ({ word }) => word?.adjective),
  verb: words(english, ({ word }) => word?.verb),
  job: words(
    english,
    lower(({ person }) => person?.job_type),
  ),
  product: words(
    english,
    lower(({ commerce }) => commerce?.product_name?.product),
  ),
  animal: words(
    english,
    lower(({ animal }) => animal?.type),
  ),
  color: words(english, ({ color }) => color?.human),
  street: words(english, ({ location }) => location?.street_name),
  food: words(english, ({ food }) => [...flat(food?.fruit), ...flat(food?.vegetable)]),
  vehicle: words(english, ({ vehicle }) => vehicle?.manufacturer),
};
const sorted = Object.entries(lists).map(([name, list]) => [name, list.toSorted()]);
writeFileSync(join('data', 'names.json'), JSON.stringify(Object.fromEntries(sorted)));
