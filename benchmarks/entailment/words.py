"""Words of the claim grammar, written for it: things, quantities, ills, and ways to tell a fact.

Entries are separated by "|". {A} and {C} are things, {B} a quantity, {D} an ill, {G} a group, {P}
the treated. {U} is a verb of the fact's direction, {I} its infinitive, {u} and {n} are participles
for and against it; {K} lacks the cause, {W} has it.
"""

from __future__ import annotations

CAUSES = """
aspirin | metformin | vitamin D | caffeine | regular exercise | smoking | green tea | ibuprofen
| statin therapy | a low-salt diet | insulin | cortisol | zinc supplementation | alcohol | fish
oil | melatonin | iron | early screening | hand washing | vaccination | physiotherapy | sleep
deprivation | chronic stress | air pollution | breastfeeding | weight loss | bariatric surgery |
antibiotic treatment | radiotherapy | chemotherapy | folic acid | nitric oxide | dopamine |
serotonin | interferon gamma | tumour necrosis factor | interleukin 6 | heat shock | hypoxia |
autophagy | DNA methylation | histone acetylation | calcium signalling | oxidative stress | the
gut microbiome | high-fat feeding | caloric restriction | estrogen | testosterone | leptin |
growth hormone | oxytocin | thyroid hormone | mechanical load | blood transfusion | early
surgery | mindfulness training | cognitive therapy | school meals | the new tax | higher
interest rates | irrigation | crop rotation | fertiliser | shade | wind | the new route | remote
work | free parking | advertising | overtime | a longer warranty | a wider road | noise | bright
light | cold exposure | sugar-sweetened drinks | red meat | olive oil | dietary fibre |
probiotics | nicotine | cannabis | lithium | ketamine | rapamycin | doxorubicin | cisplatin |
tamoxifen | heparin | warfarin | albumin | ferritin | collagen | keratin | actin | tubulin |
clathrin | dynein | kinesin | myosin | integrin | cadherin | notch signalling | Wnt signalling |
Hedgehog signalling | the complement system | neutrophils | macrophages | regulatory T cells |
mast cells | platelets | astrocytes | microglia | stem cells | fibroblasts | osteoclasts | beta
cells | memory B cells | natural killer cells | the hippocampus | gene therapy | antiretroviral
therapy | bed nets | clean water | cash transfers | health insurance | nurse-led care |
telephone follow-up | peer support | prophylaxis | screening | maternal obesity | high birth
weight | low income | marriage | urban living | early retirement | social isolation |
bilingualism | music lessons | video games
"""

QUANTITIES = """
blood pressure | body weight | tumour growth | cell proliferation | cell death | inflammation |
bone density | insulin sensitivity | memory | heart rate | life span | gene expression | protein
synthesis | viral replication | bacterial growth | wound healing | blood flow | glucose uptake |
fat storage | muscle strength | appetite | sleep quality | anxiety | pain | fatigue | kidney
function | lung function | bone loss | hair growth | fertility | immune response | antibody
production | cytokine release | platelet aggregation | cholesterol levels | triglyceride levels
| enzyme activity | membrane permeability | synaptic plasticity | neuronal survival |
myelination | angiogenesis | metastasis | DNA damage | DNA repair | chromosome segregation |
telomere length | lipid oxidation | mitochondrial activity | cell migration | cell adhesion | T
cell activation | B cell differentiation | phagocytosis | apoptosis | autophagy |
differentiation of stem cells | sensitivity to radiation | resistance to antibiotics | adherence
to treatment | quality of life | hospital admissions | length of stay | treatment costs |
waiting times | rainfall | crop yield | soil erosion | traffic | sales | prices | unemployment |
school attendance | turnover | customer satisfaction | energy use | water loss | noise levels |
river flow | reading speed | test scores | battery life | engine power | visitor numbers |
gastric emptying | bile secretion | calcium uptake | iron absorption | oxygen consumption |
thermogenesis | hepatic fibrosis | vascular stiffness | airway resistance | mucus production |
egg production | milk yield | plant height | root growth | flowering | seed germination |
nitrogen fixation
"""

ILLS = """
stroke | heart failure | breast cancer | type 2 diabetes | asthma | depression | dementia |
obesity | hip fracture | sepsis | malaria | tuberculosis | preterm birth | miscarriage | kidney
stones | lung cancer | colorectal cancer | coronary heart disease | hypertension | anaemia |
schizophrenia | autism | pneumonia | influenza | arthritis | osteoporosis | migraine | glaucoma
| hearing loss | infection | thrombosis | bleeding | cirrhosis | gout | psoriasis | eczema |
allergy | rejection of the graft | relapse | death | falls | injury | flooding | crop failure |
bankruptcy | accidents | theft | dropout
"""

GROUPS = """
mice | rats | zebrafish | elderly patients | children | pregnant women | adults | healthy
volunteers | men | women | dairy cows | cultured cells | human cell lines | patients with cancer
| patients with diabetes | smokers | athletes | infants | hospital patients | the general
population | rural areas | large firms | urban schools | yeast | flies | primates | the liver |
the brain | skeletal muscle | the kidney
"""

TREATED = """
patients | children | women | mice | participants | rats | volunteers | animals | cells |
subjects
"""

LACK = """
{P} lacking {A} | {A} deficiency | loss of {A} | the absence of {A} | depletion of {A} |
inhibition of {A} | blocking {A} | knockdown of {A} | withdrawal of {A} | removal of {A} | low
{A}
"""

GAIN = """
{A} | treatment with {A} | exposure to {A} | administration of {A} | more {A} | overexpression
of {A} | activation of {A} | {P} given {A} | addition of {A} | high {A}
"""

# Begin a sentence of a premise, sometimes a statement.
LEADS = """
In this study, | We show that | Here, we report that | Our results indicate that | These data
suggest that | CONCLUSIONS | We found that | Together, these findings show that | It is known
that | Interestingly, | However, | Overall, | RESULTS | In contrast, | As expected, | In
conclusion, | The authors report that | Last year, it was shown that | Moreover,
"""

# End it; a comma follows without a space.
TAILS = """
in {G} | (p < 0.05) | compared with controls | in {G} over {weeks} weeks | at follow-up | (n =
{count}) | in a dose-dependent manner | , although the mechanism is unclear | , as reported
before | in vivo | in the long term | , suggesting a new approach to {D} | , with a median
follow-up of {weeks} months
"""
